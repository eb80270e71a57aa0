"""Accuracies for a set of architectures: trained from scratch, or inherited from a supernet."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from libranas.arch import Arch
from libranas.files import AppendLog
from libranas.nets import build
from libranas.progress import silent
from libranas.provenance import stream_seed
from libranas.recipe import ImageSet, Recipe, accuracy
from libranas.spaces import Space
from libranas.supernet import Supernet
from libranas.train import fit


def train_each(
    space: Space,
    archs: Sequence[Arch],
    train: ImageSet,
    val: ImageSet,
    recipe: Recipe,
    seeds: Sequence[int],
    seed: int,
    log_path: Path,
    key: str,
    device: str = "cpu",
    progress: Callable = silent,
) -> pd.DataFrame:
    """Validation accuracy of every architecture after training it from scratch, a row an architecture and seed.

    `seeds` has the number of trainings of each. Goes on from the log: at most the network being trained is lost to a
    kill. Initial weights and order of images come from streams of their own and are independent of those that were
    scored.

    Returns
    -------
    DataFrame with columns ``id``, ``seed``, ``accuracy`` (in [0, 1])
    """
    done: dict[tuple[str, int], float] = {}
    with AppendLog(log_path) as log:
        done |= {(r["arch"], r["seed"]): r["accuracy"] for r in log.records if r["key"] == key}
        work = [(arch, s) for arch, count in zip(archs, seeds, strict=True) for s in range(count)]
        for arch, s in progress(work, len(work), "training the benchmark"):
            if (arch.id, s) in done:
                continue
            stream = stream_seed(seed, "benchmark", arch.id, s)
            model = build(space, arch, stream, recipe.drop_path, fused=True)
            fit(model, train, None, recipe, stream, device)
            done[arch.id, s] = accuracy(model.eval(), val, device)
            log.append({"key": key, "arch": arch.id, "seed": s, "accuracy": done[arch.id, s]})
    return pd.DataFrame([(a.id, s, done[a.id, s]) for a, s in work], columns=["id", "seed", "accuracy"])


def train_supernet(
    space: Space,
    train: ImageSet,
    recipe: Recipe,
    seed: int,
    checkpoint: Path,
    key: str,
    device: str = "cpu",
    on_epoch: Callable[[dict], None] = lambda record: None,
) -> tuple[Supernet, list[dict]]:
    """Train a supernet by uniform sampling: one random sub-network a step (Guo et al., ECCV 2020; AutoFormer).

    Returns the supernet and its history. Resumes at the last epoch of `checkpoint`.
    """
    supernet = Supernet(space, stream_seed(seed, "supernet", "init"), device, recipe.drop_path)

    def forward(step: int, inputs):
        return supernet.forward(space.sample(np.random.default_rng(stream_seed(seed, "supernet", step))), inputs)

    history = fit(
        supernet.model,
        train,
        None,
        recipe,
        stream_seed(seed, "supernet", "train"),
        device,
        checkpoint,
        key,
        on_epoch,
        forward,
    )
    return supernet, history


def inherit(supernet: Supernet, archs: Sequence[Arch], val: ImageSet, progress=silent) -> pd.DataFrame:
    """Validation accuracy of every architecture with the supernet's weights; columns as :func:`train_each`."""
    supernet.model.eval()
    device = next(supernet.model.parameters()).device
    rows = [
        (arch.id, 0, accuracy(lambda x, a=arch: supernet.forward(a, x), val, device))
        for arch in progress(archs, len(archs), "evaluating the supernet")
    ]
    return pd.DataFrame(rows, columns=["id", "seed", "accuracy"])
