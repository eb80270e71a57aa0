"""Settings of a training that are not part of its recipe: where and how it runs."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from libranas.training.recipe import TrainingRecipe

#: Fields of a recipe that may change before a run goes on: they act from the next update on. The others decide what
#: the numbers of a checkpoint mean, such as the place in the epoch and the state of the optimizer.
ACCEPTABLE = (
    *("epochs", "lr", "lr_batch", "lr_scaling", "schedule", "min_lr", "warmup_lr", "warmup_epochs", "warmup_prefix"),
    *("betas", "eps", "weight_decay", "clip_grad", "loss", "bce_threshold", "label_smoothing"),
    *("mixup", "cutmix", "mix_prob", "mix_switch", "crop", "crop_padding", "scale", "ratio", "hflip", "color_jitter"),
    *("auto_augment", "erasing", "interpolation", "crop_pct", "drop_path", "precision", "evaluate_every"),
    *("distillation_weight", "temperature", "nan_restarts", "nan_lr_factor"),
)


@dataclass(frozen=True)
class Settings:
    """Settings of a run that are no part of the recipe. Only `seed` and `micro_batch` change what is learned.

    Attributes
    ----------
    folder : for checkpoints, ``metrics.jsonl`` and ``bad_images-RANK.jsonl``; on a cluster, all machines must see it
    key : identifies network and data; compared with that of a checkpoint
    micro_batch : images at a time on a device; None: a process's share of the batch. Smaller ones are accumulated.
        Results depend on it, not on the number of processes.
    workers : processes that read images, for each process
    compile, channels_last, gradient_checkpointing : for speed or memory
    checkpoint_seconds, checkpoint_steps : between checkpoints, besides those at the end of an epoch
    log_steps : updates between two lines of ``metrics.jsonl``
    bad_images : how many images may be unreadable
    tensorboard : write the metrics for TensorBoard too
    accept : names of fields, of :data:`ACCEPTABLE`, that may differ from those of the checkpoint
    restart_on_change : begin anew where they differ, instead of an error
    """

    folder: Path
    seed: int = 0
    key: str = ""
    micro_batch: int | None = None
    workers: int = 0
    compile: bool = False
    channels_last: bool = False
    gradient_checkpointing: bool = False
    checkpoint_seconds: float = 600.0
    checkpoint_steps: int | None = None
    log_steps: int = 50
    bad_images: int = 0
    tensorboard: bool = False
    accept: Collection[str] = ()
    restart_on_change: bool = False


def computes_in(precision: str, device: torch.device) -> bool:
    """Return whether a device computes in this precision. A CPU that emulates it is ten times as slow."""
    if precision == "float32" or device.type != "cpu":
        return True
    return precision == "bfloat16" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def fitted(recipe: TrainingRecipe, images: int) -> TrainingRecipe:
    """Return the recipe with a batch of at most all images, and of an even number where images are mixed in pairs."""
    batch = min(recipe.batch_size, images)
    if recipe.mixes and batch > 1:
        batch -= batch % 2
    return recipe if batch == recipe.batch_size else replace(recipe, batch_size=batch)
