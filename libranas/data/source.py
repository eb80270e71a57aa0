"""What an adapter lists: the images of a data set with their classes and splits, not decoded."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from libranas.core.errors import LibranasError

SPLITS = ("train", "val", "test")
LAYOUTS = {
    "folder": "a folder (or .tar, .tar.gz) with train/CLASS/*.jpg and, if they exist, val/CLASS/*.jpg and "
    "test/CLASS/*.jpg; or with CLASS/*.jpg directly",
    "cifar10": "the folder with cifar-10-batches-py (unpacked: data_batch_1 to data_batch_5, test_batch), "
    "or an .npz with blob, offset, label, is_test, classes",
    "cifar100": "the folder with cifar-100-python (unpacked: train, test, meta), or an .npz with blob, offset, label, "
    "is_test, classes",
    "spherical_cifar100": "the folder with cifar-100-python (unpacked: train, test, meta), to be projected, or "
    "NAS-Bench-360's s2_cifar100.gz",
    "svhn": "the folder with train_32x32.mat and test_32x32.mat (cropped digits)",
    "pets": "the folder with oxford-iiit-pet (unpacked: images/*.jpg, annotations/trainval.txt, annotations/test.txt)",
    "imagenet": "a folder or .tar with train/nXXXXXXXX/*.JPEG and val/nXXXXXXXX/*.JPEG; the folder with train and val "
    "tars of such folders, WebDataset shards (*train*.tar, *val*.tar with KEY.jpg and KEY.cls) "
    "or ILSVRC2012_img_train.tar; or the folder with Hugging Face's parquet files",
    "webdataset": "a folder of WebDataset shards whose names say train and, if they exist, val (or valid) and test "
    "(data-train-0000.tar, with KEY.jpg and KEY.cls, a number or a name), perhaps with classes.txt, a name a line",
    "hugging_face": "the folder of a data set's parquet files (data/train-*.parquet), with the columns image and label",
}


class Item(NamedTuple):
    """One image of a data set, not decoded yet; ``load()`` gives its file's bytes or its pixels."""

    source: str
    label: int
    load: Callable[[], bytes | np.ndarray]


@dataclass
class Source:
    """What an adapter found: classes, images of each split that the data set has, files passed over, oddities."""

    classes: list[str]
    splits: dict[str, list[Item]]
    ignored: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def _missing(adapter: str, problem: str) -> LibranasError:
    todo = f"Set `data.path` in the config to {LAYOUTS[adapter]}."
    return LibranasError(f"{problem} (data.adapter is '{adapter}').", todo)


def _given(path: Path | None, adapter: str) -> Path:
    if path is None or not path.exists():
        raise _missing(adapter, f"data.path '{path}' does not exist" if path else "data.path is not set")
    return path


def read_npz(path: str | os.PathLike, keys: Sequence[str], todo: str) -> list[np.ndarray]:
    """Arrays of an .npz file, never unpickled; whatever is wrong with the file is named in the error."""
    if not Path(path).is_file():
        raise LibranasError(f"{path} does not exist.", todo)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return [arrays[key] for key in keys]
    except Exception as error:  # zipfile, zlib and numpy each have their own
        # numpy takes what is no archive for a pickle, and recommends to load it unsafely
        reason = "it is no zip archive" if isinstance(error, ValueError) and "pickle" in str(error) else error
        raise LibranasError(f"{path} is not an .npz file with {', '.join(keys)} ({reason}).", todo) from error
