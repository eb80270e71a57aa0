"""Choose the calibration batch: the class-balanced images that zero-cost proxies see."""

import os
from collections.abc import Mapping

import h5py
import numpy as np

from libranas.core.errors import LibranasError
from libranas.core.random import stream_seed
from libranas.data.reading import open_images


def calibration_indices(labels_N: np.ndarray, batch: int, seed: int) -> np.ndarray:
    """Choose the images of the calibration batch: equally many of each class, as far as the classes have images.

    Classes take turns, in random order, to give one random image each, until there are `batch`. So with more
    classes than `batch` there are `batch` distinct ones, and a class that runs out is replaced by the others.

    Parameters
    ----------
    labels_N : int (N,), of the training split; classes that occur nowhere are passed over
    batch : size B of the batch; LibranasError with fewer images
    seed : master seed

    Returns
    -------
    int64 (B,), distinct indices into `labels_N`, shuffled
    """
    if len(labels_N) < batch:
        raise LibranasError(
            f"The training split has {len(labels_N)} images, the calibration batch needs {batch}.",
            "Lower `data.calibration`, raise `data.limit.train`, or add images.",
        )
    rng = np.random.default_rng(stream_seed(seed, "calibration"))
    order_N = rng.permutation(len(labels_N))
    shuffled_N = np.asarray(labels_N)[order_N]
    counts = np.bincount(shuffled_N)
    by_class_N = np.argsort(shuffled_N, kind="stable")
    turn_N = np.empty(len(labels_N), np.int64)  # this image is the turn-th of its class
    turn_N[by_class_N] = np.arange(len(labels_N)) - np.repeat(np.cumsum(counts) - counts, counts)
    seat = rng.permutation(len(counts))
    first_B = np.lexsort((seat[shuffled_N], turn_N))[:batch]
    return rng.permutation(order_N[first_B])


def normalised(pixels_BSSC: np.ndarray, mean_C, std_C, images: str, setting: str) -> np.ndarray:
    """Return images (uint8) as float32 (B, C, S, S), each channel less its mean and divided by its deviation.

    LibranasError if a channel does not vary; `images` and `setting` name for it what was read, and from where.
    """
    if not std_C.all():
        raise LibranasError(
            f"Channel {int(std_C.argmin())} is the same in every pixel of every {images} image.",
            f"Check that `{setting}` holds the right images.",
        )
    inputs_BSSC = ((pixels_BSSC / 255 - mean_C) / std_C).astype(np.float32)
    return np.ascontiguousarray(inputs_BSSC.transpose(0, 3, 1, 2))


def calibration_batch(train: h5py.Group, mean_C, std_C, batch: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Make the calibration batch from the group ``train`` of images.h5.

    Returns
    -------
    inputs float32 (B, C, S, S), normalised with the mean and standard deviation of each channel, and targets int64 (B,)
    """
    labels_N = train["labels"][:]
    chosen_B = calibration_indices(labels_N, batch, seed)
    increasing_B, back_B = np.unique(chosen_B, return_inverse=True)  # h5py reads no other order
    pixels_BSSC = train["images"][increasing_B][back_B]
    return normalised(pixels_BSSC, mean_C, std_C, "training", "data.path"), labels_N[chosen_B]


def readout_images(path: str | os.PathLike, manifest: Mapping, least: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Load the images of the readout from ``images.h5``, as :func:`calibration_batch` chooses and returns them.

    They are `least`, or two of each class if that is more, or all training images if those are fewer.
    """
    count = min(max(least, 2 * len(manifest["classes"])), manifest["splits"]["train"]["count"])
    mean_C, std_C = np.array(manifest["mean"]), np.array(manifest["std"])
    with open_images(path) as file:
        return calibration_batch(file["train"], mean_C, std_C, count, seed)
