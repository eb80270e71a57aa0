"""Fashion-MNIST in its published files."""

import functools
import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from libranas.core.errors import LibranasError
from libranas.data.adapters.cifar import labelled
from libranas.data.source import DataSet, Source

CLASSES = ["T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]


def read_idx(folder: Path, name: str) -> np.ndarray:
    """Read an IDX file of unsigned bytes, perhaps gzipped, as MNIST has them."""
    path = next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)
    if path is None:
        raise FASHION_MNIST.missing(f"{folder} lacks {name}")
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            content = file.read()
        shape = np.frombuffer(content, ">u4", content[3], offset=4).tolist()
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape))
    except (OSError, EOFError, IndexError, ValueError, zlib.error) as error:
        raise LibranasError(f"{path} cannot be read ({error}).", f"Download {path.name} again.") from None
    if content[:3] != b"\0\0\x08" or values.size != math.prod(shape):
        raise LibranasError(f"{path} is not an IDX file of {shape} unsigned bytes.", f"Download {path.name} again.")
    return values.reshape(shape)


@contextmanager
def fashion_mnist(path: Path) -> Iterator[Source]:
    """Read Fashion-MNIST (Xiao, Rasul and Vollgraf, arXiv 1708.07747): grey images at 28 px."""
    splits = {}
    for split, prefix in {"train": "train", "test": "t10k"}.items():
        images_NSS, label_N = (
            read_idx(path, f"{prefix}-images-idx3-ubyte"),
            read_idx(path, f"{prefix}-labels-idx1-ubyte"),
        )
        if images_NSS.shape != (label_N.size, 28, 28):
            raise LibranasError(
                f"{path}: {prefix} has images {images_NSS.shape} and {label_N.size} labels; expected (N, 28, 28), N.",
                "Download the files again.",
            )
        splits[split] = [functools.partial(np.asarray, image) for image in images_NSS], label_N.tolist()
    yield labelled(path, CLASSES, splits)


FASHION_MNIST = DataSet(
    "fashion_mnist",
    fashion_mnist,
    "the folder with `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and "
    "`t10k-labels-idx1-ubyte`, perhaps gzipped; that of Debian's package `dataset-fashion-mnist` is "
    "`/usr/share/datasets/fashion-mnist`",
    "train, test",
)
