"""Labelled images that a training can read in any order."""

from typing import Protocol

import numpy as np
from PIL import Image

from libranas.core.provenance import digest


class Images(Protocol):
    """Labelled images that can be read in any order."""

    classes: list[str]
    label_N: np.ndarray

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Where it is, for messages."""

    def read(self, index: int) -> Image.Image:
        """The image, decoded; any exception if it cannot be."""


class ArrayImages:
    """Images in memory: uint8 (N, C, S, S), as the stage `prepare` made them."""

    def __init__(self, images_NCSS: np.ndarray, label_N: np.ndarray, classes: list[str]):
        self.classes, self.label_N = classes, np.asarray(label_N, np.int64)
        self.images_NSSC = np.ascontiguousarray(np.asarray(images_NCSS).transpose(0, 2, 3, 1))

    def __len__(self) -> int:
        return len(self.label_N)

    def name(self, index: int) -> str:
        return str(index)

    def read(self, index: int) -> Image.Image:
        pixels = self.images_NSSC[index]
        return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def fingerprint(images: Images) -> str:
    """Short hash of the names and labels: the same images in the same order."""
    names = digest([images.name(i) for i in range(len(images))])
    return digest(len(images), images.classes, names, images.label_N.tobytes())
