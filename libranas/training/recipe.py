"""Recipes: every hyperparameter of a training, as data. Imports no torch.

A recipe file is YAML and names every field of :class:`TrainingRecipe`, after a header (``about``). The shipped ones lie
in ``libranas/training/recipes``.
"""

import dataclasses
import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import yaml

from libranas.core.errors import LibranasError
from libranas.core.files import user_path
from libranas.core.typed import check_fields, keys_of, read, setting

FOLDER = Path(__file__).with_name("recipes")
#: What the header of a recipe file says.
ABOUT = ("source", "command", "expected", "hours")


@dataclass(frozen=True)
class TrainingRecipe:
    """Settings of one final training; BadSetting for a value that a field does not take.

    The defaults train plainly, without augmentation; files name all of them.
    """

    epochs: int = setting("Passes over the training images.", least=1)
    batch_size: int = setting("Images of one update, over all processes and accumulation steps.", 64, least=1)
    lr: float = setting("Peak rate for `lr_batch` images an update, scaled to `batch_size`.", 1e-3, above=0)
    lr_batch: int | None = setting("Images an update that `lr` is for; null: `lr` is not scaled.", None, least=1)
    lr_scaling: Literal["linear", "sqrt"] = setting("How the rate grows with the batch.", "linear")
    schedule: Literal["cosine", "tanh", "poly", "wsd", "constant"] = setting("Course of the rate.", "cosine")
    min_lr: float = setting("Rate at the end; not scaled.", 1e-5, least=0)
    warmup_lr: float = setting("Rate at the beginning; not scaled.", 1e-6, least=0)
    warmup_epochs: float = setting("Epochs in which the rate rises.", 1.0, least=0)
    warmup_prefix: bool = setting(
        "The schedule begins after the warm-up; false: it is cut off by it, as in DeiT.", True
    )
    optimizer: str = setting("timm's name of an optimizer.", "adamw")
    betas: tuple[float, float] = setting("Decays of the moments of the gradient.", (0.9, 0.999))
    eps: float = setting("Added to the denominator of the update.", 1e-8, above=0)
    weight_decay: float = setting("Decay of the weights.", 0.05, least=0)
    layer_decay: float | None = setting("Factor of the rate from each block to the one below.", None, above=0, most=1)
    clip_grad: float | None = setting("Largest norm of a gradient; null: not clipped.", 1.0, above=0)
    loss: Literal["ce", "bce"] = setting("Cross-entropy, or binary cross-entropy.", "ce")
    bce_threshold: float | None = setting("Threshold that makes mixed targets of bce binary.", None, least=0, most=1)
    label_smoothing: float = setting("Share of a target that all classes share.", 0.1, least=0, below=1)
    mixup: float = setting("timm's alpha of MixUp; 0: none.", 0.0, least=0)
    cutmix: float = setting("timm's alpha of CutMix; 0: none.", 0.0, least=0)
    mix_prob: float = setting("Probability of mixing a batch.", 1.0, least=0, most=1)
    mix_switch: float = setting("Probability of CutMix where both are possible.", 0.5, least=0, most=1)
    crop: Literal["rrc", "rkrc", "rkrr", "pad"] = setting(
        "rrc: random resized crop (`scale` and `ratio`); rkrc, rkrr: timm's that keep the ratio; pad: random crop "
        "after padding by `crop_padding` pixels.",
        "pad",
    )
    crop_padding: int = setting("Pixels of padding.", 0, least=0)
    scale: tuple[float, float] = setting("Least and most share of the image in a crop.", (0.08, 1.0))
    ratio: tuple[float, float] = setting("Least and most width of a crop over its height.", (0.75, 4 / 3))
    hflip: bool = setting("Mirror every second image.", False)
    color_jitter: float = setting("Strength of timm's colour jitter.", 0.0, least=0)
    auto_augment: str | None = setting("timm's name of a policy (rand-m9-mstd0.5-inc1, 3a).", None)
    erasing: float = setting("Probability to erase a rectangle, with random pixels as DeiT.", 0.0, least=0, most=1)
    repeats: int = setting(
        "Draws of an image in a batch (repeated augmentation); an epoch keeps its number of updates.", 1, least=1
    )
    interpolation: Literal["bicubic", "bilinear", "random"] = setting("Interpolation of all resizing.", "bicubic")
    crop_pct: float = setting("Share of the resized image that evaluation looks at.", 1.0, above=0, most=1)
    drop_path: float = setting("Rate of stochastic depth.", 0.0, least=0, below=1)
    ema: float | None = setting(
        "Decay of the averaged weights, which then are evaluated and exported; null: none.", None, above=0, below=1
    )
    ema_warmup: bool = setting("Raise the decay of the averaged weights slowly.", False)
    precision: Literal["float32", "bfloat16", "float16"] = setting(
        "Precision; float16 with loss scaling. float32 on a CPU that only emulates the others.", "float32"
    )
    teacher: str | None = setting("A timm model with weights, for logit and token of the same classes.", None)
    distillation: Literal["logit", "feature", "token"] = setting("timm's task of distillation.", "logit")
    distillation_weight: float = setting("Weight of distillation against the loss on the labels.", 0.5, least=0, most=1)
    temperature: float = setting("Temperature of distillation.", 1.0, above=0)
    evaluate_every: int = setting("Epochs between two evaluations.", 1, least=1)
    nan_restarts: int = setting("How often a run that diverged goes on from its last good checkpoint.", 0, least=0)
    nan_lr_factor: float = setting("Factor of the rate after each of these restarts.", 0.5, above=0, most=1)

    def __post_init__(self):
        check_fields(self, "recipe: ")
        if self.bce_threshold is not None and self.loss != "bce":
            raise LibranasError("recipe: bce_threshold is set, but loss is not bce.", "Set one of them.")

    @property
    def mixes(self) -> bool:
        """Say whether images are mixed, so that targets are distributions and batches even."""
        return bool(self.mixup or self.cutmix)

    @property
    def test_interpolation(self) -> str:
        """Interpolation of resizing in testing, where nothing is random."""
        return "bilinear" if self.interpolation == "random" else self.interpolation

    def effective_lr(self) -> float:
        """Return the peak rate that is used, for this `batch_size`."""
        if self.lr_batch is None:
            return self.lr
        factor = self.batch_size / self.lr_batch
        return self.lr * (factor if self.lr_scaling == "linear" else factor**0.5)

    def to_dict(self) -> dict:
        """Return a JSON-ready copy: lists instead of tuples."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}


@dataclass(frozen=True)
class ShortRecipe:
    """Settings of the short training of one of many networks (``benchmark.recipe``, ``benchmark.supernet``).

    The optimizer is AdamW. The rate rises from 1 % of `lr` during the warm-up and then falls along a cosine.
    """

    epochs: int = setting("Passes over the training images.", least=1)
    batch_size: int = setting("Images of one update.", 64, least=1)
    lr: float = setting("Peak rate.", 1e-3, above=0)
    min_lr: float = setting("Rate at the end.", 1e-5, least=0)
    weight_decay: float = setting("Decay of the weights.", 0.05, least=0)
    warmup_epochs: int = setting("Epochs in which the rate rises.", 1, least=0)
    label_smoothing: float = setting("Share of a target that all classes share.", 0.1, least=0, below=1)
    drop_path: float = setting("Rate of stochastic depth.", 0.0, least=0, below=1)
    clip_grad: float | None = setting("Largest norm of a gradient; null: not clipped.", 1.0, above=0)
    crop_padding: int = setting("Crop after padding by so many pixels.", 0, least=0)
    hflip: bool = setting("Mirror every second image.", False)
    randaugment: int = setting("Magnitude of torchvision's RandAugment; 0: none.", 0, least=0)
    erasing: float = setting("Probability to erase a rectangle of an image.", 0.0, least=0, most=1)
    mixup: float = setting("timm's alpha of MixUp; 0: none.", 0.0, least=0)
    cutmix: float = setting("timm's alpha of CutMix; 0: none.", 0.0, least=0)

    def __post_init__(self):
        check_fields(self, "recipe: ")

    def __repr__(self) -> str:
        """Return the text that names kept trainings (``benchmarks/vit``): never another one for equal settings."""
        return f"Recipe({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    def to_training_recipe(self) -> TrainingRecipe:
        """Return the same settings for what both kinds of training share; `randaugment` is left out."""
        shared = {name: value for name, value in dataclasses.asdict(self).items() if name != "randaugment"}
        return TrainingRecipe(**shared, warmup_lr=self.lr / 100)


def shipped() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_recipe(name: str) -> tuple[TrainingRecipe, dict]:
    """Return a recipe by the name of a shipped one or the path of a file, and its header.

    LibranasError if there is none, or the file lacks a field, has one that does not exist, or a value of another type.
    """
    path = FOLDER / f"{name}.yaml" if name in shipped() else user_path(name)
    if not os.path.isfile(path):  # no error for a text that is no path
        close = difflib.get_close_matches(name, shipped(), 1)
        todo = f"Did you mean {close[0]}? " if close else ""
        raise LibranasError(f"There is no recipe '{name}'.", f"{todo}Shipped: {', '.join(shipped())}; or name a file.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LibranasError(f"{path} is not a YAML file: {error}.", f"Copy one of {FOLDER} and change it.") from None
    if not isinstance(content, dict) or not isinstance(content.get("recipe"), dict):
        raise LibranasError(f"{path} has no section `recipe`.", f"Copy one of {FOLDER} and change it.")
    given, names = content["recipe"], [field.name for field in fields(TrainingRecipe)]
    if lacking := [name for name in names if name not in given]:
        raise LibranasError(f"{path} does not name {', '.join(lacking)}.", "A recipe names every field.")
    return make_recipe(given, f"{path}: "), content.get("about") or {}


def make_recipe(settings: Mapping, where: str = "recipe: ") -> TrainingRecipe:
    """Make a recipe from a mapping. Fields that it does not name have their defaults, or those of the recipe ``base``.

    BadSetting has a line for each field that does not exist, is missing or has a wrong value, after the text `where`.
    """
    changes = dict(settings)
    base = changes.pop("base", None)
    given = changes if base is None else dataclasses.asdict(read_recipe(base)[0]) | changes
    return TrainingRecipe(**read(keys_of(TrainingRecipe), given, where))
