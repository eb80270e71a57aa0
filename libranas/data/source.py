"""The record of a kind of data set, and the images that it lists with their classes and splits, not decoded."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from libranas.core.errors import LibranasError

SPLITS = ("train", "val", "test")


class Item(NamedTuple):
    """One image of a data set, not decoded yet; ``load()`` gives its file's bytes or its pixels."""

    source: str
    label: int
    load: Callable[[], bytes | np.ndarray]


@dataclass
class Source:
    """The contents of a data set: classes, images of each split that it has, files passed over, oddities."""

    classes: list[str]
    splits: dict[str, list[Item]]
    ignored: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class DataSet:
    """A kind of data set. Its record stands in a file of :mod:`libranas.data.adapters`.

    Attributes
    ----------
    name : as in the configuration (``data.adapter``)
    read : takes the path (None where `needs_path` is false) and returns a context manager of a :class:`Source`, whose
        images can be loaded while it is open
    layout : the files that it needs, in Markdown; completes the sentence "Set `data.path` to ..."
    splits : the splits that it has, for the documentation
    needs_path : whether its files have a path
    """

    name: str
    read: Callable[[Path | None], AbstractContextManager[Source]]
    layout: str
    splits: str = "those that it has"
    needs_path: bool = True

    @contextmanager
    def open(self, path: Path | None) -> Iterator[Source]:
        """Find the images of a data set; LibranasError if there is no such path, or it holds something else."""
        if not self.needs_path and path is not None:
            raise LibranasError(
                f"data.path is '{path}', but the adapter '{self.name}' reads no path.",
                "Set `data.adapter` to 'folder' or 'cifar10' to read it, or set `data.path` to null.",
            )
        if self.needs_path and (path is None or not path.exists()):
            raise self.missing(f"data.path '{path}' does not exist" if path else "data.path is not set")
        with self.read(path) as source:
            if source.ignored:
                source.warnings.append(passed_over(source.ignored))
            yield source

    def missing(self, problem: str) -> LibranasError:
        """Return an error that says which files this data set needs."""
        return LibranasError(
            f"{problem} (data.adapter is '{self.name}').", f"Set `data.path` in the config to {self.layout}."
        )


def is_hidden(parts: Sequence[str]) -> bool:
    """Say whether a file or a folder that it lies in is hidden, or macOS's own."""
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _kind(name: str) -> str:
    """Return a file's suffix, with the one before it if that is a word: ``.seg.png``."""
    if is_hidden(name.split("/")):
        return "hidden"
    found = re.search(r"(\.[^\W\d]\w{0,9})?\.\w{1,12}$", name.rsplit("/", 1)[-1])
    return found[0].lower() if found else "without a suffix"


def passed_over(names: Sequence[str], most: int = 10) -> str:
    """Count files by kind, with an example of each kind."""
    kinds = list(map(_kind, names))
    counts, examples = Counter(kinds), dict(zip(reversed(kinds), reversed(names), strict=True))
    listed = [f"{count} {kind}, such as {examples[kind]}" for kind, count in counts.most_common(most)]
    listed += [f"{len(counts) - most} other kinds"] * (len(counts) > most)
    return f"{len(names)} file(s) passed over (no images, or without a class): {'; '.join(listed)}."


def read_npz(path: str | os.PathLike, keys: Sequence[str], todo: str) -> list[np.ndarray]:
    """Read arrays of an .npz file without unpickling. The error says what is wrong with the file."""
    if not Path(path).is_file():
        raise LibranasError(f"{path} does not exist.", todo)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return [arrays[key] for key in keys]
    except Exception as error:  # zipfile, zlib and numpy each have their own
        # numpy takes what is no archive for a pickle, and recommends to load it unsafely
        reason = "it is no zip archive" if isinstance(error, ValueError) and "pickle" in str(error) else error
        raise LibranasError(f"{path} is not an .npz file with {', '.join(keys)} ({reason}).", todo) from error
