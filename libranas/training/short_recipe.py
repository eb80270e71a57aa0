"""How a network is trained: optimizer, schedule, augmentation, one epoch, accuracy.

Shared by final training, the from-scratch benchmark and the supernet, so that their numbers differ by
what is trained and not by how. Everything that exists in timm or torchvision is taken from there.

Determinism: an epoch draws from the random stream (seed, epoch) alone, so training that is killed and
resumed at an epoch boundary gives the same weights, bit for bit on one thread, as undisturbed training.

Legend: N images, C channels, H height, W width, K classes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import dispatch_clip_grad
from torch import nn
from torchvision.transforms import v2

from libranas.core.errors import LibranasError
from libranas.core.random import stream_seed
from libranas.training.recipe import ShortRecipe


@dataclass(frozen=True)
class ImageSet:
    """Images in memory (uint8, NCHW), their labels, and the statistics they are normalised with."""

    images_NCHW: torch.Tensor
    labels_N: torch.Tensor
    mean_C: tuple[float, ...]
    std_C: tuple[float, ...]
    classes: int

    @classmethod
    def from_arrays(cls, images: np.ndarray, labels: np.ndarray, manifest: dict) -> "ImageSet":
        return cls(
            torch.from_numpy(images),
            torch.from_numpy(labels),
            tuple(manifest["mean"]),
            tuple(manifest["std"]),
            len(manifest["classes"]),
        )

    def __len__(self) -> int:
        return len(self.labels_N)

    def normalised(self, images_NCHW: torch.Tensor, device) -> torch.Tensor:
        x = images_NCHW.to(device).float() / 255
        mean, std = (torch.tensor(v, device=x.device).view(1, -1, 1, 1) for v in (self.mean_C, self.std_C))
        return (x - mean) / std


def _augmentation(recipe: ShortRecipe, size: int) -> Callable | None:
    steps = []
    if recipe.crop_padding:
        steps.append(v2.RandomCrop(size, padding=recipe.crop_padding))
    if recipe.hflip:
        steps.append(v2.RandomHorizontalFlip())
    if recipe.randaugment:
        steps.append(v2.RandAugment(magnitude=recipe.randaugment))
    if recipe.erasing:
        steps.append(v2.RandomErasing(p=recipe.erasing))
    return v2.Compose(steps) if steps else None


class Trainer:
    """Optimizer, schedule and loss of one run, and the loop over an epoch.

    Parameters
    ----------
    model : nn.Module
        Holds the parameters that are optimised. What is run forward may be another function of them;
        see `forward` of :meth:`epoch`.
    steps_per_epoch : int
    seed : int
        Master seed of this run; orders images and draws augmentation, mixup and drop-path.
    """

    def __init__(self, model: nn.Module, recipe: ShortRecipe, data: ImageSet, seed: int, device="cpu"):
        self.model, self.recipe, self.data, self.seed, self.device = model, recipe, data, seed, device
        self.optimizer = create_optimizer_v2(
            model, opt="adamw", lr=recipe.lr, weight_decay=recipe.weight_decay, filter_bias_and_bn=True
        )
        self.batch_size = min(recipe.batch_size, len(data))
        if (recipe.mixup or recipe.cutmix) and self.batch_size > 1:
            self.batch_size -= self.batch_size % 2  # images are mixed in pairs
        self.steps_per_epoch = len(data) // self.batch_size
        total = max(1, recipe.epochs * self.steps_per_epoch)
        warmup = min(recipe.warmup_epochs * self.steps_per_epoch, total - 1)
        self.scheduler = CosineLRScheduler(
            self.optimizer,
            t_initial=total - warmup,
            lr_min=recipe.min_lr,
            warmup_t=warmup,
            warmup_lr_init=recipe.lr / 100,
            warmup_prefix=True,
            t_in_epochs=False,
        )
        self.mixup = None
        if recipe.mixup or recipe.cutmix:
            self.mixup = Mixup(
                mixup_alpha=recipe.mixup,
                cutmix_alpha=recipe.cutmix,
                label_smoothing=recipe.label_smoothing,
                num_classes=data.classes,
            )
            self.loss = SoftTargetCrossEntropy()
        else:
            self.loss = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        self.augment = _augmentation(recipe, data.images_NCHW.shape[-1])

    def _batches(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        order_N = torch.randperm(len(self.data))
        for step in range(self.steps_per_epoch):
            index = order_N[step * self.batch_size : (step + 1) * self.batch_size]
            images = self.data.images_NCHW[index]
            if self.augment is not None:
                images = torch.stack([self.augment(image) for image in images])
            inputs = self.data.normalised(images, self.device)
            targets = self.data.labels_N[index].to(self.device)
            yield self.mixup(inputs, targets) if self.mixup else (inputs, targets)

    def epoch(self, epoch: int, forward: Callable[[int, torch.Tensor], torch.Tensor] | None = None) -> dict:
        """Train epoch number `epoch` (from 0) and return ``{"epoch", "loss", "lr"}``.

        Parameters
        ----------
        forward : callable (step, inputs) -> logits, optional
            What is run; default the model itself. `step` counts over the whole run.

        Raises
        ------
        LibranasError
            If the loss is not finite.
        """
        self.model.train()
        total = 0.0
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(stream_seed(self.seed, "epoch", epoch))
            np_state = np.random.get_state()  # timm's Mixup draws from numpy's global generator
            np.random.seed(stream_seed(self.seed, "mixup", epoch) % 2**32)
            try:
                for i, (inputs, targets) in enumerate(self._batches(epoch)):
                    step = epoch * self.steps_per_epoch + i
                    self.scheduler.step_update(step)
                    logits = forward(step, inputs) if forward else self.model(inputs)
                    loss = self.loss(logits, targets)
                    self.optimizer.zero_grad()
                    loss.backward()
                    if self.recipe.clip_grad:
                        dispatch_clip_grad(self.model.parameters(), self.recipe.clip_grad, mode="norm")
                    self.optimizer.step()
                    total += loss.item()
            finally:
                np.random.set_state(np_state)
        if not np.isfinite(total):
            raise LibranasError(
                f"The training loss became {total} in epoch {epoch + 1} of {self.recipe.epochs}.",
                f"Lower the learning rate of this recipe (now {self.recipe.lr}) or warm up longer.",
            )
        return {
            "epoch": epoch,
            "loss": total / self.steps_per_epoch,
            "lr": self.optimizer.param_groups[0]["lr"],
        }


@torch.inference_mode()
def accuracy(forward: Callable, data: ImageSet, device="cpu", batch_size: int = 512) -> float:
    """Top-1 accuracy in [0, 1] of ``forward(inputs) -> logits`` on a whole set, without augmentation."""
    correct = 0
    for start in range(0, len(data), batch_size):
        inputs = data.normalised(data.images_NCHW[start : start + batch_size], device)
        predicted = forward(inputs).argmax(1).cpu()
        correct += (predicted == data.labels_N[start : start + batch_size]).sum().item()
    return correct / len(data)
