"""One update of the weights: a network with its loss, optimizer, schedule, precision and wrappers."""

import copy
import logging
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from timm.data.random_erasing import RandomErasing
from timm.utils import dispatch_clip_grad, unwrap_model
from torch import nn

from libranas.core.errors import LibranasError
from libranas.core.random import stream_seed
from libranas.training.distillation import make_task
from libranas.training.distributed import World
from libranas.training.optimization import make_mixup, make_optimizer, make_scheduler
from libranas.training.randomness import random_state_kept, seed_everything
from libranas.training.recipe import TrainingRecipe
from libranas.training.settings import Settings, computes_in
from libranas.training.transforms import Look

log = logging.getLogger("libranas")


class Updater:
    """A network made ready for training; :meth:`update` changes its weights once.

    Parameters
    ----------
    model : trained in place; gives logits (B, K) for images (B, C, S, S)
    parts : numbers of the micro-batches of a batch that this process takes
    updates : updates of an epoch

    Attributes
    ----------
    task : timm's: the network with its loss, teacher, averaged weights and wrappers
    cast : context in which the network computes
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: TrainingRecipe,
        settings: Settings,
        look: Look,
        classes: int,
        world: World,
        parts: range,
        updates: int,
    ):
        self.recipe, self.seed, self.device, self.parts = recipe, settings.seed, world.device, parts
        if settings.gradient_checkpointing:
            if not hasattr(model, "set_grad_checkpointing"):
                raise LibranasError(
                    f"{type(model).__name__} has no set_grad_checkpointing().",
                    "Train it without gradient checkpointing.",
                )
            model.set_grad_checkpointing()
        self.layout = torch.channels_last if settings.channels_last else torch.contiguous_format
        model = model.to(device=self.device, memory_format=self.layout)
        with random_state_kept():
            seed_everything(stream_seed(self.seed, "task"), self.device)  # a projection has initial weights
            self.task = make_task(model, recipe, look, classes, self.device)
        self.optimizer = make_optimizer(self.task.get_trainable_module(), recipe)  # also what distillation adds
        length = max(1, recipe.epochs - recipe.warmup_epochs * recipe.warmup_prefix) * updates
        self.scheduler = make_scheduler(self.optimizer, recipe, length, recipe.warmup_epochs * updates)
        self.mixup = make_mixup(recipe, classes)
        self.erasing = RandomErasing(recipe.erasing, mode="pixel", device=self.device) if recipe.erasing else None
        self._wrap(model, settings.compile, look, world)
        precision = recipe.precision
        if not computes_in(precision, self.device):
            log.info("This processor only emulates %s: float32 is used.", precision)
            precision = "float32"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "float16")
        dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision)
        self.cast = partial(torch.autocast, self.device.type, dtype=dtype) if dtype else nullcontext

    def _wrap(self, model: nn.Module, compiled: bool, look: Look, world: World) -> None:
        """Add averaged weights, compilation and the gradients of other processes, in this order."""
        unused = world.size > 1 and _has_unused_parameters(model, look, self.device)
        if self.recipe.ema is not None:
            self.task.setup_ema(self.recipe.ema, self.recipe.ema_warmup)
        if compiled:
            self.task.compile()
        if world.size > 1:
            ids = [self.device.index] if self.device.type == "cuda" else None
            self.task.prepare_distributed(device_ids=ids, find_unused_parameters=unused)

    def update(self, batches: Iterator, step: int, rate: float) -> torch.Tensor:
        """Change the weights once and return the loss (float64, on the device) of this process.

        Parameters
        ----------
        batches : gives a micro-batch of images (B, C, S, S) and labels for each of the `parts`
        step : number of the update, from 0
        rate : factor on the planned learning rate
        """
        self.scheduler.step_update(step)
        for group in self.optimizer.param_groups:
            group["lr"] *= rate
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for part in self.parts:
            images, targets = next(batches)
            seed_everything(stream_seed(self.seed, "update", step, part), self.device)
            if self.erasing:
                images = self.erasing(images)
            if self.mixup:
                images, targets = self.mixup(images, targets)
            images = images.contiguous(memory_format=self.layout)
            with nullcontext() if part == self.parts[-1] else self.task.no_sync():
                with self.cast():
                    loss = self.task(images, targets)["loss"]
                self.scaler.scale(loss / len(self.parts)).backward()
            total += loss.detach() / len(self.parts)
        if self.recipe.clip_grad:
            self.scaler.unscale_(self.optimizer)
            dispatch_clip_grad(self.task.get_clip_parameters(), self.recipe.clip_grad, mode="norm")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.task.update_ema(step + 1)
        return total

    def learning_rate(self) -> float:
        return max(group["lr"] for group in self.optimizer.param_groups)

    def network(self, averaged: bool | None = None) -> nn.Module:
        """Return the network itself, without wrappers; by default the averaged one if the recipe averages."""
        averaged = self.recipe.ema is not None if averaged is None else averaged
        return unwrap_model(self.task.get_eval_model(ema=averaged))

    def state_dict(self) -> dict:
        return {
            "model": self.network(False).state_dict(),
            "task": self.task.get_task_state(),
            "ema": self.network(True).state_dict() if self.recipe.ema is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load(self, state: dict, path: Path) -> None:
        """Take over the state of a checkpoint (`path` is for messages); the recipe's settings of the optimizer stay."""
        self.network(False).load_state_dict(state["model"])
        self.task.load_task_state(state["task"] or None)
        if self.recipe.ema is not None:
            self.network(True).load_state_dict(state["ema"])
        own = [dict(group) for group in self.optimizer.param_groups]
        if len(own) != len(state["optimizer"]["param_groups"]):
            raise LibranasError(
                f"{path} has other groups of parameters: with the weight decay 0 there is one group, else two.",
                "Go on with the weight decay of then, or a small one instead of 0.",
            )
        self.optimizer.load_state_dict(state["optimizer"])
        for group, fresh in zip(self.optimizer.param_groups, own, strict=True):
            group |= {name: fresh[name] for name in ("betas", "momentum", "eps", "weight_decay") if name in fresh}
        if state["scaler"]:  # none of a run in another precision
            self.scaler.load_state_dict(state["scaler"])


def _has_unused_parameters(model: nn.Module, look: Look, device: torch.device) -> bool:
    """Return whether a parameter gets no gradient; distributed training has to know."""
    probe = copy.deepcopy(model).train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        logits = probe(torch.randn(2, look.channels, look.size, look.size, device=device))
        sum(part.sum() for part in (logits if isinstance(logits, tuple) else (logits,))).backward()
    return any(p.grad is None for p in probe.parameters() if p.requires_grad)
