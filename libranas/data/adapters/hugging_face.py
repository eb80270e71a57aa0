"""Parquet files of a Hugging Face data set."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from libranas.core.errors import LibranasError
from libranas.data.adapters.listing import SPLIT_FOLDERS, visible, walk
from libranas.data.source import DataSet, Item, Source


@contextmanager
def hugging_face(path: Path) -> Iterator[Source]:
    """Read Hugging Face's parquet files, with the splits train and, if they exist, validation and test."""
    if not any(shard.name.startswith("train") for shard in [*path.glob("*.parquet"), *path.glob("*/*.parquet")]):
        raise HUGGING_FACE.missing(f"{path} has no train-*.parquet")
    source = Source([], {})
    listed = visible(walk(path), source.ignored)
    source.ignored += ["/".join(parts) for parts, read in listed if read and not parts[-1].endswith(".parquet")]
    names = _hugging_face_splits(path)
    if others := [name for name in names if name not in SPLIT_FOLDERS]:
        source.warnings.append(f"Not read are the splits {', '.join(others)}; train, validation and test are.")
    for name in filter(SPLIT_FOLDERS.get, names):
        reader, label_N = read_split(path, name, HUGGING_FACE)
        known = sorted(reader.class_to_idx, key=reader.class_to_idx.get) if reader.class_to_idx else []
        source.classes = source.classes or [str(c) for c in known] or [str(c) for c in range(int(label_N.max()) + 1)]
        if not 0 <= label_N.min() <= label_N.max() < len(source.classes):
            raise LibranasError(
                f"{path}: labels of {name} are {label_N.min()} to {label_N.max()}, of {len(source.classes)} classes.",
                "Unlabelled images (-1) cannot be used.",
            )
        source.splits[SPLIT_FOLDERS[name]] = reader_items(reader, name, label_N)
    yield source


def _datasets(path: Path):
    """Import Hugging Face's library; timm's reader would only print that it is missing."""
    try:
        import datasets
    except ImportError as error:
        raise LibranasError(
            f"{path} has Hugging Face's parquet files; reading them needs the package `{error.name}`.",
            "Install it: pip install 'libranas[hf]'",
        ) from error
    return datasets


def _hugging_face_splits(path: Path) -> list[str]:
    """Return the names of the splits; the library calls files named valid, val or dev ``validation``."""
    datasets = _datasets(path)
    try:
        return datasets.get_dataset_split_names(str(path))
    except Exception as error:  # the library has many of its own
        raise LibranasError(
            f"{path}: its parquet files cannot be told apart by split ({type(error).__name__}: {error}).",
            f"Set `data.path` to {HUGGING_FACE.layout}.",
        ) from error


def read_split(path: Path, name: str, data_set: DataSet) -> tuple:
    """Return timm's reader of a split, and the labels."""
    _datasets(path)
    from timm.data.readers import create_reader

    try:
        reader = create_reader(f"hfds/{path}", split=name)
        return reader, np.fromiter(reader.iter_targets(), np.int64)
    except Exception as error:  # the library has many of its own
        raise LibranasError(
            f"{path}: no split '{name}' with the columns image and label ({type(error).__name__}: {error}).",
            f"Set `data.path` to {data_set.layout}.",
        ) from error


def reader_items(reader, name: str, label_N: np.ndarray) -> list[Item]:
    labels = enumerate(label_N.tolist())
    return [Item(f"{name}/{i}", label, functools.partial(_read_reader, reader, i)) for i, label in labels]


def _read_reader(reader, index: int) -> bytes:
    with reader[index][0] as file:
        return file.read()


HUGGING_FACE = DataSet(
    "hugging_face",
    hugging_face,
    "the folder of a data set's parquet files (`data/train-*.parquet` and, if they exist, `validation-*`, `test-*`), "
    "with the columns `image` and `label`",
)
