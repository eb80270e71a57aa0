"""Accuracy on an exact set of images, by one process or many."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from timm.task import ClassificationEvaluator

from libranas.training.distributed import World


@dataclass(frozen=True)
class Evaluation:
    """What a network makes of a set.

    Attributes
    ----------
    images : how many were counted: each image of the set once, those that cannot be read left out
    loss : mean cross-entropy
    top1, top5 : accuracies in [0, 1]
    confusion_KK : counts; rows are the labels, columns the predictions
    """

    images: int
    loss: float
    top1: float
    top5: float
    confusion_KK: np.ndarray


@torch.inference_mode()
def evaluate(forward: Callable, loader, classes: int, world: World, cast: Callable) -> Evaluation:
    """Run `forward` (images to logits, in evaluation mode) over this process's share and put the shares together.

    Processes may have shares of different length, none is padded: `forward` must not communicate.
    """
    evaluator = ClassificationEvaluator(device=world.device)
    confusion_KK = torch.zeros(classes * classes, dtype=torch.int64, device=world.device)
    for images, targets in loader:
        if not len(targets):
            continue
        with cast():
            logits = forward(images).float()
        evaluator.update(logits, targets)
        confusion_KK += torch.bincount(targets * classes + logits.argmax(1), minlength=classes * classes)
    world.total(confusion_KK)
    metrics = evaluator.compute(distributed=world.size > 1)
    return Evaluation(
        int(confusion_KK.sum()),
        metrics["loss"],
        metrics["top1"] / 100,
        metrics["top5"] / 100,
        confusion_KK.view(classes, classes).cpu().numpy(),
    )
