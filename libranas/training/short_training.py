"""The short training of many networks: a benchmark's, a supernet's. On images in memory, an epoch is lost by a kill.

The final training of a few networks is :mod:`libranas.training`.
"""

import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from libranas.core.files import atomic_path
from libranas.training.recipe import ShortRecipe
from libranas.training.short_recipe import ImageSet, Trainer, accuracy


def save_checkpoint(path: Path, state: dict) -> None:
    """Write a torch file atomically: a kill leaves the previous checkpoint."""
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(path: Path, key: str) -> dict | None:
    """The checkpoint at `path` if it exists and was made for `key` (recipe, seed, data, versions)."""
    if not path.exists():
        return None
    state = torch.load(path, map_location="cpu", weights_only=True)
    return state if state.get("key") == key else None


def fit(
    model: nn.Module,
    train: ImageSet,
    val: ImageSet | None,
    recipe: ShortRecipe,
    seed: int,
    device: str = "cpu",
    checkpoint: str | os.PathLike | None = None,
    key: str = "",
    on_epoch: Callable[[dict], None] = lambda record: None,
    forward: Callable[[int, torch.Tensor], torch.Tensor] | None = None,
) -> list[dict]:
    """Train `model` in place and return its history, one record an epoch.

    Parameters
    ----------
    val : ImageSet, optional
        Evaluated after every epoch (``val_accuracy``); it chooses nothing.
    checkpoint : path, optional
        Kept after every epoch; if it exists with the same `key`, training goes on from it.
    on_epoch : callable
        Told every new record, for progress.
    forward : callable (step, inputs) -> logits, optional
        See :meth:`libranas.training.short_recipe.Trainer.epoch`; the supernet trains its slices through this.
    """
    model.to(device)
    trainer = Trainer(model, recipe, train, seed, device)
    history: list[dict] = []
    if checkpoint and (state := load_checkpoint(Path(checkpoint), key)):
        model.load_state_dict(state["model"])
        trainer.optimizer.load_state_dict(state["optimizer"])
        history = state["history"]
    for epoch in range(len(history), recipe.epochs):
        record = trainer.epoch(epoch, forward)
        if val is not None:
            model.eval()
            record["val_accuracy"] = accuracy(model, val, device)
        history.append(record)
        if checkpoint:
            save_checkpoint(
                Path(checkpoint),
                {
                    "key": key,
                    "model": model.state_dict(),
                    "optimizer": trainer.optimizer.state_dict(),
                    "history": history,
                },
            )
        on_epoch(record)
    return history


def save_weights(path: Path, model: nn.Module) -> None:
    """Write a state dict as safetensors, atomically."""
    with atomic_path(path) as temporary:
        save_file({name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}, temporary)
