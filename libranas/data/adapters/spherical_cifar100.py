"""Spherical CIFAR-100 (NAS-Bench-360)."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from libranas.core.errors import LibranasError
from libranas.core.random import stream_seed
from libranas.data.adapters.cifar import CIFAR100, labelled, planes, unpickle
from libranas.data.adapters.sphere import project, random_rotation
from libranas.data.source import DataSet, Item, Source


@contextmanager
def spherical_cifar100(path: Path) -> Iterator[Source]:
    """Read CIFAR-100 on the sphere, 60 x 60: NAS-Bench-360's file, or CIFAR-100 projected here.

    The projection is not that file: every image has a rotation of its own, which never changes, where the released
    generator turns 500 images in a row alike; and pixels keep their values, which it stretches to 0..255 in each image.
    """
    public = path / "s2_cifar100.gz" if path.is_dir() else path
    if public.is_file():
        yield _public_sphere(public)
    else:
        with CIFAR100.open(path) as source:
            for items in source.splits.values():
                items[:] = [item._replace(load=functools.partial(_on_sphere, item)) for item in items]
            yield source


def _on_sphere(item: Item) -> np.ndarray:
    # The rotation belongs to the data set: it does not change with the seed of a run.
    return project(item.load(), random_rotation(stream_seed(0, "sphere", item.source)))


def _public_sphere(path: Path) -> Source:
    keys = [f"{split}/{what}" for what in ("images", "labels") for split in ("train", "test")]
    *images, train, test = unpickle(path, "s2_cifar100.gz", *keys)
    for split, labels, found in zip(("train", "test"), (train, test), images, strict=True):
        if found.dtype != np.uint8 or found.shape != (labels.size, 3, 60, 60):
            raise LibranasError(
                f"{path}: images of {split} are {found.dtype} {found.shape}, "
                f"expected uint8 ({labels.size}, 3, 60, 60).",
                "Download s2_cifar100.gz again.",
            )
    is_test_N = np.repeat([False, True], [train.size, test.size])
    labels_N = np.concatenate([train.ravel(), test.ravel()])
    return labelled(path, [str(i) for i in range(100)], [*planes(images[0]), *planes(images[1])], labels_N, is_test_N)


SPHERICAL_CIFAR100 = DataSet(
    "spherical_cifar100",
    spherical_cifar100,
    "the folder with `cifar-100-python` (unpacked: `train`, `test`, `meta`), to be projected, or NAS-Bench-360's "
    "`s2_cifar100.gz`",
    "train, test",
)
