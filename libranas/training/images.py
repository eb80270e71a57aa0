"""Labelled images that a training can read in any order.

Legend: N images, C channels, H height, W width, S side of square images.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from PIL import Image

from libranas.core.provenance import digest


class Images(Protocol):
    """Labelled images: :meth:`name` is for messages; :meth:`read` decodes an image or raises any exception."""

    classes: list[str]
    label_N: np.ndarray

    def __len__(self) -> int: ...
    def name(self, index: int) -> str: ...
    def read(self, index: int) -> Image.Image: ...


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


@dataclass(frozen=True)
class ImageSet:
    """Images in memory (uint8), their labels, and the mean and deviation of each channel to normalise them with."""

    images_NCHW: torch.Tensor
    labels_N: torch.Tensor
    mean_C: tuple[float, ...]
    std_C: tuple[float, ...]
    classes: int

    @classmethod
    def from_arrays(cls, images: np.ndarray, labels: np.ndarray, manifest: Mapping) -> "ImageSet":
        """Take arrays of a split and the manifest of the data set, as the stage `prepare` wrote them."""
        mean_C, std_C, classes = tuple(manifest["mean"]), tuple(manifest["std"]), len(manifest["classes"])
        return cls(torch.from_numpy(images), torch.from_numpy(labels), mean_C, std_C, classes)

    def __len__(self) -> int:
        return len(self.labels_N)

    def normalised(self, images_NCHW: torch.Tensor, device) -> torch.Tensor:
        """Return some of the images (uint8) as float32 on a device."""
        x = images_NCHW.to(device).float() / 255
        mean, std = (torch.tensor(v, device=x.device).view(1, -1, 1, 1) for v in (self.mean_C, self.std_C))
        return (x - mean) / std

    def for_final_training(self) -> ArrayImages:
        """Return the same images for :class:`libranas.training.trainer.Training`; classes are called 0, 1, ..."""
        return ArrayImages(self.images_NCHW.numpy(), self.labels_N.numpy(), [str(k) for k in range(self.classes)])


def fingerprint(images: Images) -> str:
    """Return a short hash of names and labels, which is equal for the same images in the same order."""
    names = digest([images.name(i) for i in range(len(images))])
    return digest(len(images), images.classes, names, images.label_N.tobytes())
