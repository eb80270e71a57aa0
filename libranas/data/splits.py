"""Cut a data set into training, validation and test images, always in the same way for a seed."""

from collections.abc import Sequence

import numpy as np

from libranas.core.errors import LibranasError
from libranas.core.random import stream_seed
from libranas.data.source import SPLITS, Item, Source


def _stratified(items: Sequence[Item], count: int, seed: int) -> tuple[list[Item], list[Item]]:
    """Draw `count` items with the class proportions of all of them; return these and the rest, in their order."""
    from sklearn.utils import resample  # not at the top: readers of the prepared files need no scikit-learn

    # train_test_split would refuse a rest that is smaller than the number of classes
    labels, every = [item.label for item in items], np.arange(len(items))
    chosen = resample(every, n_samples=count, replace=False, stratify=labels, random_state=seed % 2**32)
    chosen = set(chosen.tolist())
    return [items[i] for i in every if i in chosen], [items[i] for i in every if i not in chosen]


def pinned_splits(source: Source, settings: dict, seed: int) -> tuple[dict, dict]:
    """Return the items of all three splits, and in words how each came about; each a dict by split."""
    splits, rules = dict(source.splits), dict.fromkeys(SPLITS, "as in the data set")
    absent = [split for split in ("test", "val") if split not in splits]
    total, classes = len(splits["train"]), source.classes
    counts = np.bincount([item.label for item in splits["train"]], minlength=len(classes))
    if absent and counts.min() < 1 + len(absent):
        raise LibranasError(
            f"Class '{classes[counts.argmin()]}' has {counts.min()} training image(s): too few to also give "
            f"one to {' and '.join(absent)}, which the data set lacks.",
            "Add images to this class, leave the class out, or bring your own val and test splits.",
        )
    for split in absent:
        share = settings["splits"][split]
        count = round(share * total)
        if not len(classes) <= count < len(splits["train"]):
            raise LibranasError(
                f"data.splits.{split} = {share} makes {count} of {total} training images the {split} split; "
                f"it needs one for each of {len(classes)} classes or more, and must leave some to train.",
                f"Change `data.splits.{split}`, or add images.",
            )
        splits[split], splits["train"] = _stratified(splits["train"], count, stream_seed(seed, "split", split))
        rules[split] = f"{share:g} of {total} training images, stratified by class, seed {seed}"
        rules["train"] = f"the training images without {' and '.join(absent)}"
    for split, limit in (settings["limit"] or {}).items():
        if limit is not None and limit < len(splits[split]):
            splits[split], _ = _stratified(splits[split], limit, stream_seed(seed, "limit", split))
            rules[split] += f"; limited to {limit}, stratified by class, seed {seed}"
    return {split: splits[split] for split in SPLITS}, rules
