"""Tables to search in: any table with an accuracy and scores or features."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from libranas.core.errors import LibranasError
from libranas.labels.table_files import TableFile, as_numbers, read_table_file
from libranas.predictors.base import Sample
from libranas.published.tables import SPACES, renamed, space_of
from libranas.search.simulate import Pool
from libranas.spaces import Space

#: Names of a first column of numbers that are names of architectures.
NAMES = ("arch", "architecture", "id", "index", "Unnamed: 0")


def read_pool(
    path: str | Path,
    accuracy: str | None = None,
    features: Sequence[str] | None = None,
    scores: str | Path | None = None,
) -> Pool:
    """Read the networks of a table.

    A first column of text names the architectures. Where the file is named after a known space (``SPACE.csv``,
    ``SPACE-TASK.csv``, ``zc_SPACE.json``), they are read: features and sizes come from the space, and rows that are
    the same network become one, with the mean of their numbers.

    Parameters
    ----------
    path : see :func:`libranas.labels.table_files.read_table_file`
    accuracy : column, default: ``accuracy``, ``val_accuracy`` or ``val_accs``
    features : columns that describe the architecture; all other columns of numbers are scores of unknown sign
    scores : table of further scores, architectures in its first column; one row for each network is enough

    Raises
    ------
    LibranasError
        For a file that is no table, a missing column, an accuracy or feature that is not a finite number, an
        architecture that comes twice or that the space does not have.
    """
    read = read_table_file(path)
    table = _rows(read, path)
    accuracy = read.accuracy(accuracy)
    if missing := [name for name in (accuracy, *(features or ())) if name not in table]:
        raise LibranasError(
            f"{path} has no column {', '.join(missing)}; it has {', '.join(map(str, table.columns))}.",
            "Name the columns with --accuracy and --features, or a task: FILE:TASK.",
        )
    numbers = table.apply(as_numbers)
    known = read.name.partition("-")[0] in SPACES and table.index.name is not None
    space = space_of(read.name) if known else None
    if scores is not None:
        further = _rows(read_table_file(scores), scores).apply(as_numbers)
        further = renamed(further, numbers.index, space, scores)
        numbers = numbers.drop(columns=further.columns.intersection(numbers.columns)).join(further)
    for name in (accuracy, *(features or ())):
        truths = name == accuracy and table[name].dtype == bool
        if len(bad := table.index[~np.isfinite(numbers[name]) | truths]):
            raise LibranasError(
                f"{path}: the {name} of {bad[0]} is {table[name][bad[0]]}, no finite number ({len(bad)} such rows).",
                "Remove the rows, or give a failed training the accuracy that it reached.",
            )
    names = [n for n in numbers if n not in {accuracy, *(features or ())} and numbers[n].notna().any()]
    score_AP, accuracy_A = numbers[names], numbers[accuracy]
    feature_AF = numbers[list(features)] if features else None
    if space is not None:
        return _networks(space, accuracy_A, score_AP, feature_AF)
    if not names and feature_AF is None:
        raise LibranasError(
            f"{path} has no column of numbers besides {accuracy}.", "Add scores, or name features with --features."
        )
    params_A = score_AP.get("params", pd.Series(0.0, score_AP.index))
    return Pool(accuracy_A.to_numpy(), Sample(score_AP, params_A, feature_AF))


def _rows(read: TableFile, path: str | Path) -> pd.DataFrame:
    """Return the rows by name of the architecture, or by number of the line where there is none."""
    table = read.frame
    first = table.columns[0]
    if first not in NAMES and as_numbers(table[first]).notna().any():
        return table.set_axis([read.place(i) for i in range(len(table))])
    table = table.set_index(first)
    if len(repeated := table.index[table.index.duplicated()]):
        raise LibranasError(f"{path}: {repeated[0]} comes twice.", "Keep one line for each architecture.")
    return table


def _networks(space: Space, accuracy_A: pd.Series, score_AP: pd.DataFrame, feature_AF: pd.DataFrame | None) -> Pool:
    """Join the rows that are the same network, and describe the networks by the space."""
    archs = [space.representative(space.parse(text)) for text in accuracy_A.index]
    ids = np.array([arch.id for arch in archs])
    by_id = dict(zip(ids, archs, strict=True))
    accuracy_A, score_AP = (x.set_axis(ids).groupby(level=0).mean() for x in (accuracy_A, score_AP))
    archs = [by_id[i] for i in accuracy_A.index]
    sizes = {"params": space.params, "flops": space.macs}
    counted = pd.DataFrame({n: [float(f(a)) for a in archs] for n, f in sizes.items()}, accuracy_A.index)
    score_AP = score_AP.join(counted[[n for n in sizes if n not in score_AP]])
    described = pd.DataFrame([space.features(arch) for arch in archs], accuracy_A.index)
    if feature_AF is not None:
        described = described.join(feature_AF.set_axis(ids).groupby(level=0).mean(), rsuffix="_of_the_table")
    return Pool(accuracy_A.to_numpy(), Sample(score_AP, score_AP["params"], described), space, archs)
