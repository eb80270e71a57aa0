"""Accuracies of many networks, each trained from scratch for a short time."""

import logging
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path

import pandas as pd

from libranas.core.arch import Arch
from libranas.core.files import AppendLog, read_log
from libranas.core.progress import silent
from libranas.core.random import stream_seed
from libranas.networks import build
from libranas.spaces import Space
from libranas.training.evaluation import accuracy
from libranas.training.images import ImageSet
from libranas.training.in_memory import ShortTraining
from libranas.training.recipe import ShortRecipe

log = logging.getLogger("libranas")


def train_each(
    space: Space,
    archs: Sequence[Arch],
    train: ImageSet,
    val: ImageSet,
    recipe: ShortRecipe,
    seeds: Sequence[int],
    seed: int,
    log_path: Path,
    key: str,
    others: Iterable[Path] = (),
    device: str = "cpu",
    progress: Callable = silent,
) -> pd.DataFrame:
    """Train each architecture from scratch, as often as `seeds` says, and measure its validation accuracy.

    Goes on from the log: at most the network being trained is lost to a kill. Initial weights are independent of those
    that were scored. Trainings in the logs of `others` are not done again. Returns a DataFrame with columns ``id``,
    ``seed``, ``accuracy`` (in [0, 1]).
    """
    with AppendLog(log_path) as kept:
        records = [*chain.from_iterable(map(read_log, others)), *kept.records]
        done = {(r["arch"], r["seed"]): r["accuracy"] for r in records if r["key"] == key}
        if other := sum(r["key"] != key for r in records):
            log.info(
                "%d trainings in the logs were made with other settings, data or versions; they are not used.", other
            )
        work = [(arch, s) for arch, count in zip(archs, seeds, strict=True) for s in range(count)]
        for arch, s in progress(work, len(work), "short trainings"):
            if (arch.id, s) in done:
                continue
            stream = stream_seed(seed, "benchmark", arch.id, s)
            model = build(space, arch, stream, recipe.drop_path, fused=True)
            ShortTraining(model, recipe, train, stream, device).fit()
            done[arch.id, s] = accuracy(model.eval(), val, device)
            kept.append({"key": key, "arch": arch.id, "seed": s, "accuracy": done[arch.id, s]})
    return pd.DataFrame([(a.id, s, done[a.id, s]) for a, s in work], columns=["id", "seed", "accuracy"])
