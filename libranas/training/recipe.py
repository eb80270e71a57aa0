"""Recipes: every hyperparameter of a training, as data. Imports no torch.

:class:`TrainingRecipe` is for final training, :class:`ShortRecipe` for the short trainings of many networks.
A recipe file is YAML and names every field of :class:`TrainingRecipe`, after a header (``about``) with its source,
its command, the accuracy to expect and the hours. The shipped ones lie in ``libranas/training/recipes``.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import yaml

from libranas.core.errors import LibranasError

FOLDER = Path(__file__).with_name("recipes")
#: What the header of a recipe file says.
ABOUT = ("source", "command", "expected", "hours")


@dataclass(frozen=True)
class TrainingRecipe:
    """Settings of one final training. The defaults train plainly, without augmentation; files name all of them.

    Attributes
    ----------
    batch_size : images of one update, over all processes and accumulation steps
    lr, lr_batch, lr_scaling : peak rate for `lr_batch` images an update, scaled to `batch_size` ``linear`` or ``sqrt``;
        with `lr_batch` null it is the rate itself
    min_lr, warmup_lr, warmup_epochs, warmup_prefix : where the schedule ends and begins (not scaled); whether the
        cosine begins after the warm-up or is cut off by it, as in DeiT
    layer_decay : factor of the rate from each block to the one below
    loss : ``ce`` or ``bce``; `bce_threshold` makes mixed targets binary
    mixup, cutmix : timm's alphas; `mix_prob` of mixing a batch, `mix_switch` of CutMix where both are possible
    crop : ``rrc`` (random resized crop, `scale` and `ratio`), ``rkrc``, ``rkrr`` (timm's that keep the ratio), ``pad``
        (random crop after padding by `crop_padding` pixels)
    auto_augment : timm's name of a policy (``rand-m9-mstd0.5-inc1``, ``3a``)
    erasing : probability; random pixels, as DeiT
    repeats : draws of an image in a batch (repeated augmentation); an epoch keeps its number of updates
    crop_pct, interpolation : share of the resized image that evaluation looks at; of all resizing
    ema : decay of the averaged weights, which then are what is evaluated and exported; `ema_warmup` raises it slowly
    precision : ``float32``, ``bfloat16`` or ``float16`` (with loss scaling); float32 on a CPU that only emulates others
    teacher, distillation : a timm model with weights, for ``logit`` and ``token`` of the same classes; ``logit``,
        ``feature`` or ``token`` (timm's tasks), weighted with `distillation_weight` against the loss on the labels, at
        `temperature`
    nan_restarts, nan_lr_factor : how often a run that diverged goes on from its last good checkpoint, and by what the
        rate is multiplied then
    """

    epochs: int
    batch_size: int = 64
    lr: float = 1e-3
    lr_batch: int | None = None
    lr_scaling: str = "linear"
    schedule: str = "cosine"
    min_lr: float = 1e-5
    warmup_lr: float = 1e-6
    warmup_epochs: float = 1
    warmup_prefix: bool = True
    optimizer: str = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.05
    layer_decay: float | None = None
    clip_grad: float | None = 1.0
    loss: str = "ce"
    bce_threshold: float | None = None
    label_smoothing: float = 0.1
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_prob: float = 1.0
    mix_switch: float = 0.5
    crop: str = "pad"
    crop_padding: int = 0
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (0.75, 4 / 3)
    hflip: bool = False
    color_jitter: float = 0.0
    auto_augment: str | None = None
    erasing: float = 0.0
    repeats: int = 1
    interpolation: str = "bicubic"
    crop_pct: float = 1.0
    drop_path: float = 0.0
    ema: float | None = None
    ema_warmup: bool = False
    precision: str = "float32"
    teacher: str | None = None
    distillation: str = "logit"
    distillation_weight: float = 0.5
    temperature: float = 1.0
    evaluate_every: int = 1
    nan_restarts: int = 0
    nan_lr_factor: float = 0.5

    def __post_init__(self):
        for field in fields(self):
            object.__setattr__(self, field.name, _value(field.name, getattr(self, field.name), HINTS[field.name]))
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise LibranasError(
                    f"recipe: {name} is {getattr(self, name)!r}.", f"Choose one of {', '.join(allowed)}."
                )
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise LibranasError(f"recipe: {name} is {value}.", f"It must be {low:g} to {high:g}.")
        if self.bce_threshold is not None and self.loss != "bce":
            raise LibranasError("recipe: bce_threshold is set, but loss is not bce.", "Set one of them.")

    @property
    def mixes(self) -> bool:
        """Whether images are mixed, so that targets are distributions and batches even."""
        return bool(self.mixup or self.cutmix)

    @property
    def test_interpolation(self) -> str:
        """Of resizing in testing, where nothing is random."""
        return "bilinear" if self.interpolation == "random" else self.interpolation

    def effective_lr(self) -> float:
        """The peak rate that is used, for this `batch_size`."""
        if self.lr_batch is None:
            return self.lr
        factor = self.batch_size / self.lr_batch
        return self.lr * (factor if self.lr_scaling == "linear" else factor**0.5)

    def to_dict(self) -> dict:
        """JSON-ready: lists instead of tuples."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}


@dataclass(frozen=True)
class ShortRecipe:
    """Settings of the short training of one of many networks (``benchmark.recipe``, ``benchmark.supernet``).

    The optimizer is AdamW. The rate rises from 1 % of `lr` during the warm-up and then falls along a cosine.

    Attributes
    ----------
    lr, min_lr : peak rate and last rate
    crop_padding, hflip : crop after padding by so many pixels; mirror every second image
    randaugment : magnitude of torchvision's RandAugment; 0: none
    erasing : probability to erase a rectangle of an image
    mixup, cutmix : timm's alphas
    clip_grad : largest norm of a gradient; None: not clipped
    """

    epochs: int
    batch_size: int = 64
    lr: float = 1e-3
    min_lr: float = 1e-5
    weight_decay: float = 0.05
    warmup_epochs: int = 1
    label_smoothing: float = 0.1
    drop_path: float = 0.0
    clip_grad: float | None = 1.0
    crop_padding: int = 0
    hflip: bool = False
    randaugment: int = 0
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __repr__(self) -> str:
        """Return the text that names kept trainings (``benchmarks/vit``): never another one for equal settings."""
        return f"Recipe({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    def to_training_recipe(self) -> TrainingRecipe:
        """The same settings for what both kinds of training share; `randaugment` is left out."""
        shared = {name: value for name, value in dataclasses.asdict(self).items() if name != "randaugment"}
        return TrainingRecipe(**shared, warmup_lr=self.lr / 100)


HINTS = typing.get_type_hints(TrainingRecipe)
CHOICES = {
    "lr_scaling": ("linear", "sqrt"),
    "schedule": ("cosine", "tanh", "poly", "wsd", "constant"),
    "loss": ("ce", "bce"),
    "crop": ("rrc", "rkrc", "rkrr", "pad"),
    "interpolation": ("bicubic", "bilinear", "random"),
    "precision": ("float32", "bfloat16", "float16"),
    "distillation": ("logit", "feature", "token"),
}
RANGES = {
    **dict.fromkeys(("epochs", "batch_size", "lr_batch", "repeats", "evaluate_every"), (1, 1e9)),
    **dict.fromkeys(("min_lr", "warmup_lr", "warmup_epochs", "weight_decay", "mixup", "cutmix"), (0, 1e9)),
    **dict.fromkeys(("label_smoothing", "mix_prob", "mix_switch", "erasing", "drop_path"), (0, 1)),
    **dict.fromkeys(("ema", "layer_decay", "bce_threshold", "distillation_weight"), (0, 1)),
    **{"lr": (1e-12, 1e9), "clip_grad": (1e-12, 1e9), "eps": (1e-30, 1), "temperature": (1e-3, 1e3)},
    **{"crop_pct": (0.01, 1), "crop_padding": (0, 1e6), "color_jitter": (0, 1e3)},
    **{"nan_restarts": (0, 1000), "nan_lr_factor": (1e-6, 1)},
}


def _value(name: str, value, hint):
    """`value` as the type of its field; an error that names the field where it has another."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in kinds:
        return None
    kind = next(k for k in kinds if k is not type(None))
    if typing.get_origin(kind) is tuple:
        if isinstance(value, (list, tuple)) and len(value) == len(typing.get_args(kind)):
            return tuple(_value(name, v, float) for v in value)
    elif kind is float:
        if isinstance(value, str):  # YAML 1.1 takes 1e-3 for text
            try:
                return float(value)
            except ValueError:
                pass
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif type(value) is kind:
        return value
    expected = {float: "a number", int: "a whole number", str: "text", bool: "true or false"}.get(kind, "two numbers")
    raise LibranasError(f"recipe: {name} is {value!r}.", f"It must be {expected}{' or null' * (len(kinds) > 1)}.")


def shipped() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_recipe(name: str) -> tuple[TrainingRecipe, dict]:
    """A recipe by the name of a shipped one or the path of a file, and its header.

    Raises
    ------
    LibranasError
        If there is none, or the file lacks a field, has one that does not exist, or a value of another type.
    """
    path = FOLDER / f"{name}.yaml" if name in shipped() else Path(name).expanduser()
    if not path.is_file():
        close = difflib.get_close_matches(name, shipped(), 1)
        todo = f"Did you mean {close[0]}? " if close else ""
        raise LibranasError(f"There is no recipe '{name}'.", f"{todo}Shipped: {', '.join(shipped())}; or name a file.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LibranasError(f"{path} is not a YAML file: {error}.", "Copy a shipped recipe and change it.") from None
    if not isinstance(content, dict) or not isinstance(content.get("recipe"), dict):
        raise LibranasError(f"{path} has no section `recipe`.", "Copy a shipped recipe and change it.")
    given, names = content["recipe"], [field.name for field in fields(TrainingRecipe)]
    if lacking := [name for name in names if name not in given]:
        raise LibranasError(f"{path} does not name {', '.join(lacking)}.", "A recipe names every field.")
    return make_recipe(given, str(path)), content.get("about") or {}


def make_recipe(settings: Mapping, where: str = "recipe") -> TrainingRecipe:
    """A recipe from a mapping; fields that it does not name have their defaults, or those of the recipe ``base``."""
    settings = dict(settings)
    base = settings.pop("base", None)
    names = [field.name for field in fields(TrainingRecipe)]
    for key in settings:
        if key not in names:
            close = difflib.get_close_matches(str(key), names, 1)
            raise LibranasError(
                f"{where}: there is no field '{key}'.",
                f"Did you mean {close[0]}?" if close else "See the shipped ones.",
            )
    try:
        if base is not None:
            return dataclasses.replace(read_recipe(base)[0], **settings)
        return TrainingRecipe(**settings)
    except TypeError:
        raise LibranasError(f"{where}: `epochs` is not given.", "Name it, or a `base`.") from None
    except LibranasError as error:
        raise LibranasError(error.what.replace("recipe:", f"{where}:", 1), error.todo) from None
