"""Read the files that :func:`libranas.data.prepare.prepare.prepare` wrote."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from libranas.core.errors import LibranasError
from libranas.data.source import SPLITS, read_npz

FORMAT, MANIFEST_FORMAT, VERSION = "libranas-images", "libranas-manifest", 1
_AGAIN = "Delete it and run the stage `prepare` again."


@contextmanager
def open_images(path: str | os.PathLike) -> Iterator[h5py.File]:
    """Open ``images.h5`` read-only, after a check.

    LibranasError names the file if it is missing, foreign, of another version, cut off or damaged (also when that
    shows only in reading).
    """
    if not Path(path).is_file():
        raise LibranasError(f"{path} does not exist.", "Run the stage `prepare`, which makes it.")
    try:
        with h5py.File(path, "r") as file:
            found = file.attrs.get("format"), file.attrs.get("version")
            if found != (FORMAT.encode(), VERSION) or not all(f"{split}/source" in file for split in SPLITS):
                raise LibranasError(
                    f"{path} is no images file (format {found[0]}, version {found[1]}, {', '.join(file)}; "
                    f"expected {FORMAT.encode()}, {VERSION}, {', '.join(SPLITS)}).",
                    _AGAIN,
                )
            yield file
    except (OSError, KeyError) as error:  # KeyError: how h5py says that damage hides a group
        raise LibranasError(f"{path} is cut off, damaged or not an HDF5 file ({error}).", _AGAIN) from error


def load_split(path: str | os.PathLike, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Load images uint8 (N, C, S, S) and labels int64 (N,) of a split of ``images.h5``; errors: `open_images`."""
    with open_images(path) as file:
        images_NSSC, labels_N = file[split]["images"][:], file[split]["labels"][:]
    return np.ascontiguousarray(images_NSSC.transpose(0, 3, 1, 2)), labels_N


def load_calibration(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Load inputs float32 (B, C, S, S), normalised, and targets int64 (B,) of ``calibration.npz``.

    LibranasError names the file if it is missing, cut off or foreign.
    """
    return tuple(read_npz(path, ("inputs", "targets"), _AGAIN))
