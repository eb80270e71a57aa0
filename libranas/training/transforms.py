"""Change an image for training (augmentation) and for evaluation.

Legend: C channels, S side.
"""

import itertools
from dataclasses import dataclass

from PIL import Image
from timm.data import auto_augment
from timm.data.transforms_factory import transforms_imagenet_eval, transforms_imagenet_train
from torchvision import transforms

from libranas.core.errors import LibranasError
from libranas.training.recipe import TrainingRecipe


@dataclass(frozen=True)
class Look:
    """Images as a network sees them: side, channels, mean and deviation of a channel (of pixels in [0, 1])."""

    size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def training_transform(recipe: TrainingRecipe, look: Look):
    """Make the random change of a PIL image to a uint8 tensor (C, S, S): timm's, but for the crop ``pad``."""
    try:
        first, second, last = transforms_imagenet_train(
            look.size,
            scale=recipe.scale,
            ratio=recipe.ratio,
            train_crop_mode="rrc" if recipe.crop == "pad" else recipe.crop,
            hflip=0.5 if recipe.hflip else 0.0,
            color_jitter=recipe.color_jitter or None,
            auto_augment=recipe.auto_augment,
            interpolation=recipe.interpolation,
            mean=look.mean,
            std=look.std,
            use_prefetcher=True,
            separate=True,
        )
    except (AssertionError, KeyError, ValueError) as error:
        raise LibranasError(
            f"recipe: timm makes no augmentation of auto_augment {recipe.auto_augment!r} ({error}).",
            "Names are like rand-m9-mstd0.5-inc1, 3a, original, augmix-m5-w4-d2, or null.",
        ) from None
    for policy in second.transforms:
        ops = getattr(policy, "ops", None) or itertools.chain(*getattr(policy, "policy", ()))
        for op in ops:
            if op.aug_fn is auto_augment.posterize:
                op.aug_fn = _posterize
    steps = [*first.transforms, *second.transforms, *last.transforms]
    if recipe.crop == "pad":  # instead of the crop, which is first
        steps[:1] = [
            transforms.Resize(look.size, transforms.InterpolationMode(recipe.test_interpolation)),
            transforms.CenterCrop(look.size),
        ]
        if recipe.crop_padding:
            steps.insert(2, transforms.RandomCrop(look.size, padding=recipe.crop_padding))
    return transforms.Compose(steps)


def _posterize(image: Image.Image, bits_to_keep: int, **_) -> Image.Image:
    """Call timm's, but make the image black at the highest magnitude, which keeps no bits: Pillow 13 raises there."""
    if bits_to_keep:
        return auto_augment.posterize(image, bits_to_keep)
    return image.point(lambda value: 0)


def evaluation_transform(recipe: TrainingRecipe, look: Look):
    """Make the change of a PIL image to a uint8 tensor (C, S, S): resize it and take its centre."""
    return transforms_imagenet_eval(
        look.size,
        crop_pct=recipe.crop_pct,
        interpolation=recipe.test_interpolation,
        mean=look.mean,
        std=look.std,
        use_prefetcher=True,
    )
