"""Train a supernet and take inherited accuracies."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from libranas.core.arch import Arch
from libranas.core.progress import silent
from libranas.core.random import stream_seed
from libranas.labels.supernet import Supernet
from libranas.spaces import Space
from libranas.training.recipe import ShortRecipe
from libranas.training.short_recipe import ImageSet, accuracy
from libranas.training.short_training import fit


def train_supernet(
    space: Space,
    train: ImageSet,
    recipe: ShortRecipe,
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
