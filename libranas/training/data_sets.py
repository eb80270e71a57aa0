"""Open a data set for a training by its text KIND:PATH; KIND is a name of :data:`libranas.data.registry.DATA_SETS`.

Legend: N images.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from PIL import Image

from libranas.core.errors import LibranasError
from libranas.core.files import user_path
from libranas.data.decode import open_image
from libranas.data.registry import DATA_SETS, open_data_set
from libranas.data.source import Item
from libranas.data.splits import pinned_splits


class ItemImages:
    """Images that an adapter found; each is decoded when it is read."""

    def __init__(self, items: Sequence[Item], classes: list[str], channels: int):
        self.classes, self.channels, self.items = classes, channels, items
        self.label_N = np.array([item.label for item in items], np.int64)

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        return self.items[index].source

    def read(self, index: int) -> Image.Image:
        return open_image(self.items[index].load(), self.channels)


class Splits(NamedTuple):
    """Images of the three splits (None: it is empty), the rule that made each, and warnings about the data set."""

    train: ItemImages
    val: ItemImages | None
    test: ItemImages | None
    rules: dict[str, str]
    warnings: list[str]


@contextmanager
def open_splits(text: str, channels: int, val_share: float, test_share: float) -> Iterator[Splits]:
    """Open the data set that `text` names; its splits can be read while the context is open.

    Parameters
    ----------
    text : ``KIND:PATH``, or ``digits``
    val_share, test_share : shares of the training images for splits that the data set lacks; 0: go without
    """
    kind, colon, path = text.partition(":")
    if kind not in DATA_SETS or (bool(colon) != bool(path)):
        raise LibranasError(
            f"'{text}' is no data set of the form KIND:PATH.",
            f"KIND is one of {', '.join(DATA_SETS)} (docs/data-sets.md).",
        )
    shares = {"val": val_share, "test": test_share}
    with open_data_set(kind, user_path(path) if path else None, f"{kind}:PATH") as source:
        if len(source.classes) < 2:
            raise LibranasError(f"{text} has only the class {source.classes}.", "Classification needs two or more.")
        left_out = [split for split, share in shares.items() if not share and split not in source.splits]
        source.splits |= {split: [] for split in left_out}
        splits, rules = pinned_splits(source, {"splits": shares, "limit": None}, seed=0)
        images = {s: ItemImages(items, source.classes, channels) if items else None for s, items in splits.items()}
        kept = {split: rule for split, rule in rules.items() if split not in left_out}
        yield Splits(images["train"], images["val"], images["test"], kept, source.warnings)
