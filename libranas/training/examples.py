"""Images on their way into a training: which ones, in which order, how they are changed, a batch at a time.

Everything random is a function of the run's seed and of a place: the order of an epoch of (seed, epoch), the changes
of an image of (seed, epoch, place in the epoch). So a run can go on anywhere, and nothing depends on the number of
worker processes or on how a batch is divided among processes.

Legend: N images, B batch, C channels, S side.
"""

import itertools
import json
import random
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from timm.data import auto_augment
from timm.data.loader import PrefetchLoader
from timm.data.transforms_factory import transforms_imagenet_eval, transforms_imagenet_train
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from libranas.errors import LibranasError
from libranas.files import read_log
from libranas.progress import SIGNALS
from libranas.provenance import digest, stream_seed
from libranas.training.recipe import TrainingRecipe


class Images(Protocol):
    """Labelled images that can be read in any order."""

    classes: list[str]
    label_N: np.ndarray

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Where it is, for messages."""

    def read(self, index: int) -> Image.Image:
        """The image, decoded; any exception if it cannot be."""


class ArrayImages:
    """Images in memory: uint8 (N, C, S, S), as the stage `prepare` made them."""

    def __init__(self, images_NCSS: np.ndarray, label_N: np.ndarray, classes: list[str]):
        self.classes, self.label_N = classes, np.asarray(label_N, np.int64)
        self.images_NSSC = np.ascontiguousarray(np.asarray(images_NCSS).transpose(0, 2, 3, 1))

    def __len__(self) -> int:
        return len(self.label_N)

    def name(self, index: int) -> str:
        return str(index)

    def read(self, index: int) -> Image.Image:
        pixels = self.images_NSSC[index]
        return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


@dataclass(frozen=True)
class Look:
    """What images look like when a network sees them: side, channels and normalisation (of pixels in [0, 1])."""

    size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def fingerprint(images: Images) -> str:
    """Short hash of the names and labels: the same images in the same order."""
    names = digest([images.name(i) for i in range(len(images))])
    return digest(len(images), images.classes, names, images.label_N.tobytes())


# Order ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """Which image is where: the batches of a run, cut into micro-batches.

    A batch is cut into `micro_batches` equal parts; every process takes its share of them. Neighbours in a batch come
    to different parts, so that repeated draws of an image do (as in DeiT).

    Attributes
    ----------
    count : images of the training set
    batch : images of an update
    micro_batches : parts of a batch
    """

    count: int
    batch: int
    micro_batches: int
    repeats: int
    seed: int

    @property
    def updates(self) -> int:
        """Updates of an epoch; images that do not fill a batch are left out, others in each epoch."""
        return self.count // self.batch

    def order(self, epoch: int) -> np.ndarray:
        """Indices of the images of an epoch, in their order (updates x batch)."""
        rng = np.random.default_rng(stream_seed(self.seed, "order", epoch))
        wanted = self.updates * self.batch
        if self.repeats == 1:
            return rng.permutation(self.count)[:wanted]
        return np.repeat(rng.permutation(self.count)[: -(-wanted // self.repeats)], self.repeats)[:wanted]

    def micro_batch(self, order: np.ndarray, epoch: int, update: int, part: int) -> list[tuple[int, int]]:
        """Index and seed of each image of one micro-batch; `update` counts within the epoch."""
        places = range(update * self.batch + part, (update + 1) * self.batch, self.micro_batches)
        return [(int(order[p]), stream_seed(self.seed, "image", epoch, p)) for p in places]


class Batches:
    """Batch sampler: the micro-batches of one process, from one update to the end of its epoch."""

    def __init__(self, plan: Plan, parts: Sequence[int]):
        self.plan, self.parts, self.epoch, self.first = plan, parts, 0, 0

    def __len__(self) -> int:
        return (self.plan.updates - self.first) * len(self.parts)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, order = self.epoch, self.plan.order(self.epoch)
        for update in range(self.first, self.plan.updates):
            for part in self.parts:
                yield self.plan.micro_batch(order, epoch, update, part)


# Reading ----------------------------------------------------------------------------------------------


def seed_everything(seed: int, device: torch.device | None = None) -> None:
    """Begin a random stream in all generators that timm, torchvision and networks draw from.

    ``torch.manual_seed`` would also look for devices that are not used here, which takes a millisecond each time.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type == "cuda":
        torch.cuda.manual_seed(seed)


class BadImages:
    """Images that could not be read: files of JSON lines in a folder, one a process, which its workers append to too.

    A line is written in one piece, so that they do not mix; between machines that would not hold, so each process has
    its own file, and all are read together. They outlive a kill.
    """

    def __init__(self, folder: Path | None, limit: int, rank: int = 0):
        self.folder, self.limit, self.rank = folder, limit, rank

    def add(self, images: Images, index: int, error: Exception) -> None:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        if self.folder is None or not self.limit:
            raise LibranasError(
                f"The image {images.name(index)} cannot be read: {reason}.",
                "Mend or remove it, or allow some bad images.",
            ) from error
        line = json.dumps({"image": images.name(index), "reason": reason.splitlines()[0][:300]}) + "\n"
        with open(self.folder / f"bad_images-{self.rank}.jsonl", "ab", buffering=0) as file:
            file.write(line.encode())

    def found(self) -> dict[str, str]:
        """Name to reason."""
        paths = sorted(self.folder.glob("bad_images-*.jsonl")) if self.folder else []
        return {entry["image"]: entry["reason"] for path in paths for entry in read_log(path)}

    def check(self) -> int:
        """Their number; LibranasError if they are more than the limit."""
        found = self.found()
        if len(found) > self.limit:
            first = "".join(f"\n     {name}: {reason}" for name, reason in list(found.items())[:10])
            raise LibranasError(
                f"{len(found)} images cannot be read, {self.limit} are allowed. The first of them:{first}",
                "Mend or remove them, or allow more bad images.",
            )
        return len(found)


class _Training(Dataset):
    """Image and label for (index, seed). In the place of an image that cannot be read comes the next one."""

    def __init__(self, images: Images, transform, bad: BadImages):
        self.images, self.transform, self.bad = images, transform, bad

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, int]:
        index, seed = key
        for _ in range(len(self.images)):
            try:
                image = self.images.read(index)
                break
            except Exception as error:  # readers of images raise nearly anything
                self.bad.add(self.images, index, error)
                index = (index + 1) % len(self.images)
        else:
            raise LibranasError("Not one training image can be read.", "Check the data.")
        seed_everything(seed)
        return self.transform(image), int(self.images.label_N[index])


class _Evaluation(Dataset):
    """Image and index for an index; None for an image that cannot be read."""

    def __init__(self, images: Images, transform, bad: BadImages):
        self.images, self.transform, self.bad = images, transform, bad

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int] | None:
        try:
            image = self.images.read(index)
        except Exception as error:
            self.bad.add(self.images, index, error)
            return None
        return self.transform(image), index


def _collate(look: Look, examples: list) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 (B, C, S, S) and int64 (B,), labels or indices, without the images that could not be read."""
    good = [example for example in examples if example is not None]
    if not good:
        return torch.empty(0, look.channels, look.size, look.size, dtype=torch.uint8), torch.empty(0, dtype=torch.int64)
    return torch.stack([image for image, _ in good]), torch.tensor([number for _, number in good])


def training_transform(recipe: TrainingRecipe, look: Look):
    """From a PIL image to a uint8 tensor (C, S, S), with the recipe's random changes; timm's, but for ``pad``."""
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
        steps[:1] = _fitted(recipe, look)
        if recipe.crop_padding:
            steps.insert(2, transforms.RandomCrop(look.size, padding=recipe.crop_padding))
    return transforms.Compose(steps)


def _posterize(image: Image.Image, bits_to_keep: int, **_) -> Image.Image:
    """timm's, which asks for no bits at all at the highest magnitude; Pillow 13 raises then, its forerunners made
    the image black."""
    if bits_to_keep:
        return auto_augment.posterize(image, bits_to_keep)
    return image.point(lambda value: 0)


def _fitted(recipe: TrainingRecipe, look: Look) -> list:
    return [
        transforms.Resize(look.size, transforms.InterpolationMode(recipe.test_interpolation)),
        transforms.CenterCrop(look.size),
    ]


def evaluation_transform(recipe: TrainingRecipe, look: Look):
    """From a PIL image to a uint8 tensor (C, S, S): resized, and its centre."""
    return transforms_imagenet_eval(
        look.size,
        crop_pct=recipe.crop_pct,
        interpolation=recipe.test_interpolation,
        mean=look.mean,
        std=look.std,
        use_prefetcher=True,
    )


class _Deaf(DataLoader):
    """Its reading processes go on when a scheduler sends its signals to all: the batch at hand needs them, and their
    parent ends them. What is blocked while they are forked stays so in them, from their first moment."""

    def __iter__(self):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _loader(dataset: Dataset, look: Look, device: torch.device, workers: int, **arguments) -> PrefetchLoader:
    loader = _Deaf(
        dataset,
        num_workers=workers,
        collate_fn=partial(_collate, look),
        pin_memory=device.type == "cuda",
        multiprocessing_context="fork" if workers else None,  # images in memory are shared, and open files
        **arguments,
    )
    # Moves a batch to the device while the one before is at work, and normalises it there.
    return PrefetchLoader(loader, look.mean, look.std, look.channels, device)


def training_loader(
    images: Images, recipe: TrainingRecipe, look: Look, batches: Batches, device: torch.device, workers: int, bad
) -> PrefetchLoader:
    """Micro-batches float32 (B, C, S, S) and labels on the device; `batches` says from where."""
    dataset = _Training(images, training_transform(recipe, look), bad)
    return _loader(dataset, look, device, workers, batch_sampler=batches)


def evaluation_loader(
    images: Images,
    recipe: TrainingRecipe,
    look: Look,
    share: range,
    batch: int,
    device: torch.device,
    workers: int,
    bad,
) -> PrefetchLoader:
    """Batches float32 (B, C, S, S) and the indices of the images of `share`, each once."""
    dataset = _Evaluation(images, evaluation_transform(recipe, look), bad)
    return _loader(dataset, look, device, workers, batch_size=batch, sampler=share)
