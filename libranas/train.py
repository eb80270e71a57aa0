"""Training a stand-alone network from its initial weights, with checkpoints that survive a kill."""

import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from libranas.arch import Arch
from libranas.files import atomic_path
from libranas.nets import build
from libranas.provenance import facts, stream_seed
from libranas.recipe import ImageSet, Recipe, Trainer, accuracy
from libranas.spaces import Space


def pick_device(setting: str = "auto") -> str:
    """``auto``: a GPU if there is one, else the CPU."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if setting == "auto" else setting


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
    recipe: Recipe,
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
        See :meth:`libranas.recipe.Trainer.epoch`; the supernet trains its slices through this.
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


def train_and_test(
    space: Space,
    arch: Arch,
    sets: tuple[ImageSet, ImageSet, ImageSet],
    recipe: Recipe,
    seeds: tuple[int, int],
    device: str,
    checkpoint: Path,
    key: str,
    on_epoch: Callable[[dict], None],
) -> tuple[nn.Module, dict]:
    """Train a network of the space and measure its test accuracy once, after the last epoch.

    Parameters
    ----------
    sets : training, validation and test images
    seeds : master seed and index of this training; the order of images is the same for all networks of an index

    Returns
    -------
    the trained network, and its metrics (accuracies in [0, 1]; JSON-ready)
    """
    master, index = seeds
    train, val, test = sets
    model = build(space, arch, stream_seed(master, "train", "init", arch.id, index), recipe.drop_path, fused=True)
    history = fit(model, train, val, recipe, stream_seed(master, "train", index), device, checkpoint, key, on_epoch)
    model.eval()
    metrics = {
        "id": arch.id,
        "params": space.params(arch),
        "macs": space.macs(arch),
        "test_accuracy": accuracy(model, test, device),
        "val_accuracy": history[-1]["val_accuracy"],
        "test_images": len(test),
        "history": history,
        "facts": facts(),
    }
    return model, metrics


def save_weights(path: Path, model: nn.Module) -> None:
    """Write a state dict as safetensors, atomically."""
    with atomic_path(path) as temporary:
        save_file({name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}, temporary)
