"""Street View House Numbers, cropped digits."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from libranas.core.errors import LibranasError
from libranas.data.adapters.cifar import labelled, planes
from libranas.data.source import DataSet, Source


@contextmanager
def svhn(path: Path) -> Iterator[Source]:
    """Read Street View House Numbers, cropped digits at 32 px, as torchvision keeps them, without the extra images."""
    from scipy.io import loadmat

    splits = {}
    for split in ("train", "test"):
        name = f"{split}_32x32.mat"
        if not (path / name).is_file():
            raise SVHN.missing(f"{path} lacks {name}")
        try:
            content = loadmat(path / name)
            pixels_SSCN, label_N = content["X"], content["y"].ravel().astype(np.int64)
        except Exception as error:  # damaged files raise nearly anything
            raise LibranasError(
                f"{path / name} is not a MATLAB file with X and y ({type(error).__name__}: {error}).",
                f"Download {name} again.",
            ) from error
        if pixels_SSCN.dtype != np.uint8 or pixels_SSCN.shape != (32, 32, 3, label_N.size):
            raise LibranasError(
                f"{path / name}: X is {pixels_SSCN.dtype} {pixels_SSCN.shape}, expected uint8 (32, 32, 3, "
                f"{label_N.size}).",
                f"Download {name} again.",
            )
        labels = np.where(label_N == 10, 0, label_N).tolist()  # MATLAB counts from one: ten is the digit 0
        splits[split] = planes(pixels_SSCN.transpose(3, 2, 0, 1)), labels
    yield labelled(path, list("0123456789"), splits)


SVHN = DataSet(
    "svhn",
    svhn,
    "the folder with `train_32x32.mat` and `test_32x32.mat` (cropped digits)",
    "train, test; not the extra images",
)
