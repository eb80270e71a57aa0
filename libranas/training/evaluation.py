"""Measure accuracy on an exact set of images, by one process or many.

Legend: N images, B batch, K classes.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from timm.data import RealLabelsImagenet
from timm.task import ClassificationEvaluator

from libranas.training.distributed import World
from libranas.training.images import Images, ImageSet


@dataclass(frozen=True)
class Evaluation:
    """Results of a network on a set of images. Each is counted once; those that cannot be read are left out.

    Attributes
    ----------
    images : how many were counted
    loss, top1, top5 : mean cross-entropy; accuracies in [0, 1]
    confusion_KK : counts; rows are the labels, columns the predictions
    index_N, best_N5 : the images that were counted, and the (up to) five classes with the highest logits
    """

    images: int
    loss: float
    top1: float
    top5: float
    confusion_KK: np.ndarray
    index_N: np.ndarray
    best_N5: np.ndarray


@torch.inference_mode()
def evaluate(forward: Callable, loader, label_N: np.ndarray, classes: int, world: World, cast: Callable) -> Evaluation:
    """Run `forward` (images to logits, in evaluation mode) over the share of each process and join the results.

    The shares may differ in length and are not padded: `forward` must not communicate.
    """
    evaluator = ClassificationEvaluator(device=world.device)
    labels = torch.from_numpy(label_N).to(world.device)
    confusion_KK = torch.zeros(classes * classes, dtype=torch.int64, device=world.device)
    seen, best = [], []
    for images, index_B in loader:
        if not len(index_B):
            continue
        with cast():
            logits_BK = forward(images).float()
        evaluator.update(logits_BK, labels[index_B])
        best_B5 = logits_BK.topk(min(5, classes)).indices
        confusion_KK += torch.bincount(labels[index_B] * classes + best_B5[:, 0], minlength=classes * classes)
        seen.append(index_B)
        best.append(best_B5)
    world.total(confusion_KK)
    metrics = evaluator.compute(distributed=world.size > 1)
    ours = [torch.cat(parts).cpu().numpy() for parts in (seen, best)] if seen else None
    shares = [share for share in world.gathered(ours) if share]
    index_N = np.concatenate([index for index, _ in shares]) if shares else np.empty(0, np.int64)
    best_N5 = np.concatenate([best for _, best in shares]) if shares else np.empty((0, min(5, classes)), np.int64)
    order = np.argsort(index_N)
    return Evaluation(
        len(index_N),
        metrics["loss"],
        metrics["top1"] / 100,
        metrics["top5"] / 100,
        confusion_KK.view(classes, classes).cpu().numpy(),
        index_N[order],
        best_N5[order],
    )


def real_accuracy(result: Evaluation, images: Images) -> dict | None:
    """Return the accuracy by the reassessed labels of ImageNet's validation images, which timm carries.

    An image may have several labels, or none and is then left out (Beyer et al., Are we done with ImageNet?, 2020).
    Returns ``images``, ``top1`` and ``top5``; None if the images are not ImageNet's 50,000 by their names.
    """
    found = [re.search(r"ILSVRC2012_val_\d{8}", images.name(i)) for i in range(len(images))]
    if len(found) != 50_000 or not all(found):
        return None
    names = [f"{match[0]}.JPEG" for match in found]
    labels = RealLabelsImagenet(names).real_labels
    hits = []
    for index, best in zip(result.index_N, result.best_N5, strict=True):
        if known := labels.get(names[index]):
            hits.append([best[0] in known, any(k in known for k in best)])
    top1, top5 = np.mean(hits, axis=0)
    return {"images": len(hits), "top1": float(top1), "top5": float(top5)}


@torch.inference_mode()
def accuracy(forward: Callable, data: ImageSet, device="cpu", batch_size: int = 512) -> float:
    """Return the top-1 accuracy in [0, 1] of ``forward(inputs) -> logits`` on a whole set, without augmentation."""
    correct = 0
    for start in range(0, len(data), batch_size):
        inputs = data.normalised(data.images_NCHW[start : start + batch_size], device)
        predicted = forward(inputs).argmax(1).cpu()
        correct += (predicted == data.labels_N[start : start + batch_size]).sum().item()
    return correct / len(data)
