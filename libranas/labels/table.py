"""Tables of accuracies: those of the stage benchmark; a published benchmark, or the user's own measurements."""

from pathlib import Path

import numpy as np
import pandas as pd

from libranas.core.errors import LibranasError
from libranas.labels.table_files import ACCURACIES, ARCHITECTURES, read_table_file
from libranas.spaces import Space


def read_accuracies(*paths: str | Path) -> pd.DataFrame:
    """Join the trainings in CSV files of the stage benchmark: columns ``id``, ``seed``, ``accuracy``."""
    # Pandas takes an id for a number where a file has no other and it has no letter, or an e only.
    return pd.concat([pd.read_csv(path, dtype={"id": str}) for path in paths], ignore_index=True)


def mean_accuracies(path: str | Path) -> pd.Series:
    """Return each architecture's mean accuracy (by id) from a CSV file of the stage benchmark."""
    return read_accuracies(path).groupby("id")["accuracy"].mean()


def read_accuracy_table(
    path: str | Path, space: Space, architecture: str = "architecture", accuracy: str = "accuracy"
) -> pd.DataFrame:
    """Read architectures and accuracies from a table, published or of the user.

    Parameters
    ----------
    path : see :func:`libranas.labels.table_files.read_table_file`
    architecture, accuracy : names of the columns; where the table lacks them, its usual ones are taken for the names
        that are given by default. An architecture is anything that ``space.parse`` reads

    Returns
    -------
    DataFrame with columns ``id``, ``seed`` (0), ``accuracy`` and ``arch`` (:class:`libranas.core.arch.Arch`);
    LibranasError names the row that has no architecture of the space, a repeated one, or no number as accuracy
    """
    try:
        read = read_table_file(path)
    except LibranasError as error:
        raise LibranasError(f"benchmark.table: {error.what}", error.todo) from None
    table = read.frame
    if architecture == ARCHITECTURES[0]:
        architecture = next((name for name in ARCHITECTURES if name in table), architecture)
    if accuracy == ACCURACIES[0]:
        accuracy = read.accuracy()
    if missing := {architecture, accuracy} - set(table.columns):
        raise LibranasError(
            f"benchmark.table: {path} has no column {', '.join(sorted(missing))}; it has {', '.join(table.columns)}.",
            "Name the columns of architectures and accuracies under benchmark.columns.",
        )
    rows, seen = [], set()
    for position, (text, value) in enumerate(zip(table[architecture], table[accuracy], strict=True)):
        where = f"benchmark.table: {path}, {read.place(position)}"
        try:
            arch = space.parse(str(text))
        except LibranasError as error:
            raise LibranasError(f"{where}: {error.what}", error.todo) from None
        number = np.nan if isinstance(value, (bool, np.bool_)) else pd.to_numeric(value, errors="coerce")
        if not np.isfinite(number):
            raise LibranasError(f"{where}: accuracy {value!r} is not a number.", "Remove the line or mend it.")
        if arch.id in seen:
            raise LibranasError(f"{where}: {text} comes twice.", "Keep one line an architecture.")
        seen.add(arch.id)
        rows.append((arch.id, 0, float(number), arch))
    return pd.DataFrame(rows, columns=["id", "seed", "accuracy", "arch"])
