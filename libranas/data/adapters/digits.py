"""scikit-learn's handwritten digits."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from libranas.data.source import DataSet, Item, Source


@contextmanager
def digits(path: None) -> Iterator[Source]:
    """Read scikit-learn's 1,797 handwritten digits, 8 x 8, values 0..16 spread over 0..255; no download."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    labels = enumerate(bunch.target.tolist())
    items = [Item(f"digits/{i}", label, functools.partial(pixels.__getitem__, i)) for i, label in labels]
    yield Source([str(name) for name in bunch.target_names], {"train": items})


DIGITS = DataSet("digits", digits, "nothing: they are scikit-learn's 1,797 digits", "train", needs_path=False)
