"""Spherical CIFAR-100 of NAS-Bench-360, and CIFAR-10 in the same way.

The image is laid on one hemisphere by stereographic projection, the sphere is rotated at random, and the signal is
read off on an equiangular grid (Cohen et al., *Spherical CNNs*, ICLR 2018, section 5.2; Tu et al., *NAS-Bench-360*,
NeurIPS 2022). Outside of the image the sphere is black.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import scipy  # parts of it are imported when they are used: slow, and a scoring job does without

from libranas.core.errors import LibranasError
from libranas.core.random import stream_seed
from libranas.data.adapters.cifar import CIFAR10, CIFAR100, labelled, planes, unpickle
from libranas.data.decode import open_image
from libranas.data.source import DataSet, Item, Source

#: Half the side of the image in the plane that touches the unit sphere at the pole, in radii. The equator is at 2, so
#: the corners, at 2.1, just reach beyond it. The value is that of the generator that Cohen et al. released.
HALF_SIDE = 1.5


@functools.lru_cache
def grid(bandwidth: int) -> np.ndarray:
    """Return the unit vectors of the Driscoll-Healy grid, float64 (3, 2b, 2b).

    Entry (:, j, k) has the colatitude pi j / 2b (0: the north pole) and the longitude 2 pi k / 2b.
    """
    step = np.arange(2 * bandwidth) * np.pi / (2 * bandwidth)
    colatitude, longitude = np.meshgrid(step, 2 * step, indexing="ij")
    ring = np.sin(colatitude)
    return np.stack([ring * np.cos(longitude), ring * np.sin(longitude), np.cos(colatitude)])


def random_rotation(seed: int) -> np.ndarray:
    """Draw a rotation matrix (3, 3), uniform over all rotations: a normal 4-vector is a uniform quaternion."""
    return scipy.spatial.transform.Rotation.from_quat(np.random.default_rng(seed).standard_normal(4)).as_matrix()


def project(image_SSC: np.ndarray, rotation: np.ndarray, bandwidth: int = 30) -> np.ndarray:
    """Return the image as it is seen at the points ``rotation @ grid(bandwidth)``.

    Without rotation its centre is at the north pole, its rows run along x and its columns against y, so that it is
    upright for an eye at the centre of the sphere.

    Parameters
    ----------
    image_SSC : uint8 (S, S, C)
    rotation : rotation matrix (3, 3) of the grid
    bandwidth : b of the grid

    Returns
    -------
    uint8 (2b, 2b, C), colatitude by longitude by channel; bilinear between pixel centres, fading to black over the edge
    """
    size = len(image_SSC)
    x, y, z = np.tensordot(rotation, grid(bandwidth), 1)
    # From the south pole through the point to the plane z = 1. Below z = -0.9 all is far outside of the image, and
    # the south pole itself has no place in the plane.
    stretch = 2 / np.maximum(1 + z, 0.1)
    plane = np.stack([x * stretch, -y * stretch])
    position = np.where(z > -0.9, (plane / HALF_SIDE + 1) / 2 * size - 0.5, -1)
    position = np.clip(position, -1, size) + 1  # in the image with a rim of one black pixel
    low = np.minimum(position.astype(np.int64), size)
    (row, column), (down, right) = low, (position - low)[..., None]
    framed = np.pad(image_SSC.astype(np.float64), ((1, 1), (1, 1), (0, 0)))
    upper = framed[row, column] * (1 - right) + framed[row, column + 1] * right
    lower = framed[row + 1, column] * (1 - right) + framed[row + 1, column + 1] * right
    return np.rint(upper * (1 - down) + lower * down).astype(np.uint8)


@contextmanager
def _spherical(flat: DataSet, path: Path) -> Iterator[Source]:
    """Project the images of a data set to the sphere, 60 x 60."""
    with flat.open(path) as source:
        for items in source.splits.values():
            items[:] = [item._replace(load=functools.partial(_on_sphere, item)) for item in items]
        yield source


def _on_sphere(item: Item) -> np.ndarray:
    # The rotation belongs to the data set: it does not change with the seed of a run.
    image = np.asarray(open_image(item.load(), channels=3))
    return project(image, random_rotation(stream_seed(0, "sphere", item.source)))


@contextmanager
def spherical_cifar100(path: Path) -> Iterator[Source]:
    """Read CIFAR-100 on the sphere: NAS-Bench-360's file, or CIFAR-100 projected here.

    The projection is not that file: every image has a rotation of its own, which never changes, where the released
    generator turns 500 images in a row alike; and pixels keep their values, which it stretches to 0..255 in each image.
    """
    public = path / "s2_cifar100.gz" if path.is_dir() else path
    if public.is_file() and public.suffix == ".gz":
        yield _public_sphere(public)
    else:
        with _spherical(CIFAR100, path) as source:
            yield source


def _public_sphere(path: Path) -> Source:
    keys = [f"{split}/{what}" for what in ("images", "labels") for split in ("train", "test")]
    images, splits = unpickle(path, "s2_cifar100.gz", *keys), {}
    for split, found, labels in zip(("train", "test"), images[:2], images[2:], strict=True):
        if found.dtype != np.uint8 or found.shape != (labels.size, 3, 60, 60):
            raise LibranasError(
                f"{path}: images of {split} are {found.dtype} {found.shape}, "
                f"expected uint8 ({labels.size}, 3, 60, 60).",
                "Download s2_cifar100.gz again.",
            )
        splits[split] = planes(found), labels.ravel().tolist()
    return labelled(path, [str(i) for i in range(100)], splits)


SPHERICAL_CIFAR10 = DataSet(
    "spherical_cifar10",
    functools.partial(_spherical, CIFAR10),
    "what `cifar10` reads, to be projected",
    "train, test",
)
SPHERICAL_CIFAR100 = DataSet(
    "spherical_cifar100",
    spherical_cifar100,
    "the folder with `cifar-100-python` (unpacked: `train`, `test`, `meta`), to be projected, or NAS-Bench-360's "
    "`s2_cifar100.gz`",
    "train, test",
)
