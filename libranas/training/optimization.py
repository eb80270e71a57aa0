"""Optimizer, learning rate and mixing of images, as a recipe says: the same for final and for short trainings."""

from inspect import signature

import torch
from timm.data import Mixup
from timm.optim import create_optimizer_v2, get_optimizer_info
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn

from libranas.core.errors import LibranasError
from libranas.training.recipe import TrainingRecipe


def make_optimizer(module: nn.Module, recipe: TrainingRecipe) -> torch.optim.Optimizer:
    """Make the optimizer of a recipe. Biases, norms and what the network names are not decayed.

    PyTorch's own optimizers run fused: for small networks on a CPU an update takes three quarters of the time.
    """
    try:
        info = get_optimizer_info(recipe.optimizer)
    except ValueError:
        raise LibranasError(
            f"recipe: timm has no optimizer {recipe.optimizer!r}.", "timm.optim.list_optimizers() lists them."
        ) from None
    if not any(p.requires_grad for p in module.parameters()):
        raise LibranasError(
            f"No parameter of {type(module).__name__} is trained: all are frozen.", "Set requires_grad of some to True."
        )
    try:
        return create_optimizer_v2(
            module,
            opt=recipe.optimizer,
            lr=recipe.effective_lr(),
            weight_decay=recipe.weight_decay,
            momentum=recipe.betas[0],
            layer_decay=recipe.layer_decay,
            **({"betas": recipe.betas} if info.has_betas else {}),
            **({"eps": recipe.eps} if info.has_eps else {}),
            **({"fused": True} if "fused" in signature(info.opt_class).parameters else {}),
        )
    except (ValueError, AssertionError) as error:
        raise LibranasError(
            f"recipe: the optimizer {recipe.optimizer} does not take these settings: {error}.",
            "Change `optimizer`, `betas`, `eps`, `lr` or `weight_decay`.",
        ) from error


def make_scheduler(optimizer: torch.optim.Optimizer, recipe: TrainingRecipe, length: float, warmup: float) -> Scheduler:
    """Make the schedule of the learning rate, which counts updates.

    Parameters
    ----------
    length : updates after the warm-up; with it where the recipe's `warmup_prefix` is false
    warmup : updates of the warm-up
    """
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched=recipe.schedule,
        num_epochs=length,
        min_lr=recipe.min_lr,
        warmup_lr=recipe.warmup_lr,
        warmup_epochs=warmup,
        warmup_prefix=recipe.warmup_prefix,
        step_on_epochs=False,
        updates_per_epoch=1,
    )
    return scheduler


def make_mixup(recipe: TrainingRecipe, classes: int) -> Mixup | None:
    """Make what mixes images and their labels; None if the recipe does not mix."""
    if not recipe.mixes:
        return None
    return Mixup(
        mixup_alpha=recipe.mixup,
        cutmix_alpha=recipe.cutmix,
        prob=recipe.mix_prob,
        switch_prob=recipe.mix_switch,
        label_smoothing=recipe.label_smoothing,
        num_classes=classes,
    )
