"""Accuracies from a table: a published benchmark, or the user's own measurements."""

from pathlib import Path

import numpy as np
import pandas as pd

from libranas.arch import Arch
from libranas.errors import LibranasError
from libranas.spaces import Space


def read_table(path: str | Path, space: Space) -> pd.DataFrame:
    """Architectures and accuracies of a CSV file with the columns ``architecture`` (canonical JSON) and
    ``accuracy``.

    Returns
    -------
    DataFrame with columns ``id``, ``seed`` (0), ``accuracy`` and ``arch`` (:class:`Arch`)

    Raises
    ------
    LibranasError
        For a missing file or column, an architecture outside the space, a repeated one, or an accuracy that is
        not a number; the line is named.
    """
    try:
        table = pd.read_csv(path)
    except FileNotFoundError:
        raise LibranasError(f"benchmark.table: {path} does not exist.", "Give the path of a CSV file.") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise LibranasError(
            f"benchmark.table: {path} is not a CSV file ({error}).", "Expected comma-separated text."
        ) from None
    if missing := {"architecture", "accuracy"} - set(table.columns):
        raise LibranasError(
            f"benchmark.table: {path} has no column {', '.join(sorted(missing))}; it has {', '.join(table.columns)}.",
            "Expected the columns architecture (canonical JSON) and accuracy.",
        )
    rows, seen = [], set()
    for line, (text, value) in enumerate(zip(table["architecture"], table["accuracy"], strict=True), start=2):
        where = f"benchmark.table: {path}, line {line}"
        arch = Arch.from_json(str(text))
        if not space.contains(arch):
            raise LibranasError(f"{where}: {text} is not a member of the space.", f"The space is {space}.")
        arch = space.canonical(arch)
        number = pd.to_numeric(value, errors="coerce")
        if not np.isfinite(number):
            raise LibranasError(f"{where}: accuracy {value!r} is not a number.", "Remove the line or mend it.")
        if arch.id in seen:
            raise LibranasError(f"{where}: {text} comes twice.", "Keep one line an architecture.")
        seen.add(arch.id)
        rows.append((arch.id, 0, float(number), arch))
    return pd.DataFrame(rows, columns=["id", "seed", "accuracy", "arch"])
