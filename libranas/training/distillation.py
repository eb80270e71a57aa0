"""The task of a training: loss on the labels, and on the answers of a teacher if the recipe names one."""

import timm
import torch
from timm.loss import create_classification_loss
from timm.task import (
    ClassificationTask,
    FeatureDistillationTask,
    LogitDistillationTask,
    TokenDistillationTask,
    TrainingTask,
)
from torch import nn

from libranas.core.errors import LibranasError
from libranas.training.recipe import TrainingRecipe
from libranas.training.transforms import Look

#: Kind of distillation to timm's task, and what the network must have for it.
TASKS = {
    "logit": (LogitDistillationTask, ()),
    "feature": (FeatureDistillationTask, ("forward_features", "forward_head")),
    "token": (TokenDistillationTask, ("set_distilled_training",)),
}


def make_task(model: nn.Module, recipe: TrainingRecipe, look: Look, classes: int, device: torch.device) -> TrainingTask:
    """Put the network and its loss into a task of timm; with a teacher, into one of distillation.

    LibranasError if the teacher cannot be made, or the network or the teacher does not fit the kind of distillation.
    """
    loss = create_classification_loss(
        *(recipe.loss, False, recipe.label_smoothing, recipe.mixes), bce_target_thresh=recipe.bce_threshold
    )
    if recipe.teacher is None:
        return ClassificationTask(model, loss, device=device, verbose=False)
    kind = recipe.distillation
    make, needed = TASKS[kind]
    if lacking := [need for need in ("pretrained_cfg", *needed) if not hasattr(model, need)]:
        raise LibranasError(
            f"recipe: {kind} distillation is not possible for {type(model).__name__}, which has no {lacking[0]}.",
            "Train a network of timm or of a search space, with `distillation` logit; or without a teacher.",
        )
    task = make(
        model,
        teacher_model=_teacher(recipe, look, classes).to(device),
        criterion=loss,
        distill_loss_weight=recipe.distillation_weight,
        task_loss_weight=1 - recipe.distillation_weight,
        **({} if kind == "feature" else {"temperature": recipe.temperature}),
        device=device,
        verbose=False,
    )
    # What images are normalised with here; timm takes what is usual for the network.
    for name, values in (("student_mean", look.mean), ("student_std", look.std)):
        setattr(task, name, torch.tensor(values, device=device).view(1, -1, 1, 1))
    return task


def _teacher(recipe: TrainingRecipe, look: Look, classes: int) -> nn.Module:
    """Load the teacher with its own head, for images of this size."""
    name = recipe.teacher
    try:
        teacher = timm.create_model(name, pretrained=True, in_chans=look.channels)
        if look.size != teacher.pretrained_cfg["input_size"][-1] and hasattr(teacher, "set_input_size"):
            teacher.set_input_size(img_size=(look.size, look.size))
        if len(teacher.pretrained_cfg["mean"]) != look.channels:
            raise ValueError(f"it was trained on images of {len(teacher.pretrained_cfg['mean'])} channels")
        with torch.inference_mode():
            teacher.eval()(torch.zeros(1, look.channels, look.size, look.size))
    except Exception as error:  # timm, the network and the hub have many of their own
        raise LibranasError(
            f"recipe: the teacher {name} cannot be made for images of {look.size} px: {type(error).__name__}: {error}.",
            "Name a timm model with weights, such as regnety_160.deit_in1k, or local-dir:FOLDER of an exported "
            "network. The weights are downloaded, unless they are there already.",
        ) from error
    if recipe.distillation != "feature" and teacher.num_classes != classes:
        raise LibranasError(
            f"recipe: the teacher {name} knows {teacher.num_classes} classes, the images have {classes}.",
            "Take a teacher that was trained on these classes (local-dir:FOLDER of an exported network), or "
            "`distillation` feature, which needs no classes.",
        )
    return teacher
