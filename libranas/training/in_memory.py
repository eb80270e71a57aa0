"""Short trainings of many networks, on images in memory.

The loop is faster on small images than that of final training (benchmarks/training/short_loop.json), and keeps the
random streams of all recorded accuracies. An epoch draws from the stream (seed, epoch) alone, so a training that is
killed and goes on gives the same weights as an undisturbed one, bit for bit on one thread.

Legend: N images, B batch, C channels, H height, W width, K classes, Y and X rows and columns with their padding.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from timm.loss import SoftTargetCrossEntropy
from timm.utils import dispatch_clip_grad
from torch import nn
from torchvision.transforms import v2

from libranas.core.errors import LibranasError
from libranas.core.progress import silent
from libranas.core.random import stream_seed
from libranas.training.checkpoints import Checkpoints
from libranas.training.images import ImageSet
from libranas.training.optimization import make_mixup, make_optimizer, make_scheduler
from libranas.training.randomness import random_state_kept
from libranas.training.recipe import ShortRecipe
from libranas.training.settings import fitted


class ShortTraining:
    """One training on images in memory. :meth:`fit` trains to the end.

    Parameters
    ----------
    model : trained in place
    seed : orders images and draws augmentation, mixing and drop-path
    forward : (step, inputs_BCHW) -> logits_BK, by default the model; `step` counts over the whole run
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: ShortRecipe,
        data: ImageSet,
        seed: int,
        device: str = "cpu",
        forward: Callable[[int, torch.Tensor], torch.Tensor] | None = None,
    ):
        self.model, self.recipe, self.data, self.seed, self.device = model.to(device), recipe, data, seed, device
        self.forward = forward or (lambda step, inputs_BCHW: model(inputs_BCHW))
        settings = fitted(recipe.to_training_recipe(), len(data))
        self.batch_size, self.updates = settings.batch_size, len(data) // settings.batch_size
        total = max(1, recipe.epochs * self.updates)
        warmup = min(recipe.warmup_epochs * self.updates, total - 1)
        self.optimizer = make_optimizer(model, settings)
        self.scheduler = make_scheduler(self.optimizer, settings, total - warmup, warmup)
        self.mixup = make_mixup(settings, data.classes)
        # timm's smoothing of labels rounds otherwise than PyTorch's, and accuracies that are recorded would change.
        smoothed = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        self.loss = SoftTargetCrossEntropy() if self.mixup else smoothed
        self.each_image = _of_each_image(recipe)

    def fit(
        self,
        checkpoints: Checkpoints | None = None,
        key: str = "",
        on_epoch: Callable[[dict], None] = lambda record: None,
        progress=silent,
    ) -> list[dict]:
        """Train to the end; return a record ``{"epoch", "loss", "lr"}`` an epoch.

        Parameters
        ----------
        checkpoints : written after every epoch; training goes on from the newest one if it has the same `key`
        on_epoch : told every new record
        progress : :func:`libranas.core.progress.progress` shows the epochs
        """
        history: list[dict] = []
        if checkpoints and (found := checkpoints.newest(lambda state: state["key"] == key)):
            state = found[1]
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            history = state["history"]
        epochs = range(len(history), self.recipe.epochs)
        for epoch in progress(epochs, len(epochs), "epochs"):
            record = self._epoch(epoch)
            history.append(record)
            if checkpoints:
                tensors = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
                checkpoints.save((epoch + 1) * self.updates, {"key": key, **tensors, "history": history})
            on_epoch(record)
        return history

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Give inputs and targets of an epoch, drawn with the generators as they are."""
        order_N = torch.randperm(len(self.data))
        for index_B in order_N[: self.updates * self.batch_size].split(self.batch_size):
            images_BCHW = self.data.images_NCHW[index_B]
            if self.recipe.crop_padding:
                images_BCHW = shifted(images_BCHW, self.recipe.crop_padding)
            if self.recipe.hflip:
                images_BCHW = mirrored(images_BCHW)
            if self.each_image is not None:
                images_BCHW = torch.stack([self.each_image(image_CHW) for image_CHW in images_BCHW])
            inputs_BCHW = self.data.normalised(images_BCHW, self.device)
            targets_B = self.data.labels_N[index_B].to(self.device)
            yield self.mixup(inputs_BCHW, targets_B) if self.mixup else (inputs_BCHW, targets_B)

    def _epoch(self, epoch: int) -> dict:
        """Train one epoch; LibranasError if the loss is not finite."""
        self.model.train()
        total = 0.0
        with random_state_kept():
            torch.manual_seed(stream_seed(self.seed, "epoch", epoch))
            np.random.seed(stream_seed(self.seed, "mixup", epoch) % 2**32)  # timm's Mixup draws from it
            for step, (inputs_BCHW, targets) in enumerate(self.batches(), start=epoch * self.updates):
                self.scheduler.step_update(step)
                loss = self.loss(self.forward(step, inputs_BCHW), targets)
                self.optimizer.zero_grad()
                loss.backward()
                if self.recipe.clip_grad:
                    dispatch_clip_grad(self.model.parameters(), self.recipe.clip_grad, mode="norm")
                self.optimizer.step()
                total += loss.item()
        if not np.isfinite(total):
            raise LibranasError(
                f"The training loss became {total} in epoch {epoch + 1} of {self.recipe.epochs}.",
                f"Lower the learning rate of this recipe (now {self.recipe.lr}) or warm up longer.",
            )
        return {"epoch": epoch, "loss": total / self.updates, "lr": self.optimizer.param_groups[0]["lr"]}


def shifted(images_BCHW: torch.Tensor, padding: int) -> torch.Tensor:
    """Crop each image at random after padding it with zeros; all at once is several times as fast as one by one."""
    count, _, height, width = images_BCHW.shape
    padded_BCYX = F.pad(images_BCHW, (padding,) * 4)
    top_B, left_B = torch.randint(2 * padding + 1, (2, count))
    rows_BH = top_B[:, None] + torch.arange(height)
    columns_BW = left_B[:, None] + torch.arange(width)
    which_B = torch.arange(count)[:, None, None]
    return padded_BCYX[which_B, :, rows_BH[:, :, None], columns_BW[:, None, :]].movedim(-1, 1)


def mirrored(images_BCHW: torch.Tensor) -> torch.Tensor:
    """Mirror every second image at random."""
    chosen_B = torch.rand(len(images_BCHW)) < 0.5
    return torch.where(chosen_B[:, None, None, None], images_BCHW.flip(-1), images_BCHW)


def _of_each_image(recipe: ShortRecipe) -> Callable | None:
    """Make what is changed in one image after another."""
    steps = []
    if recipe.randaugment:
        steps.append(v2.RandAugment(magnitude=recipe.randaugment))
    if recipe.erasing:
        steps.append(v2.RandomErasing(p=recipe.erasing))
    return v2.Compose(steps) if steps else None
