"""Read images, in worker processes or not, and give batches on the device.

What is random in an image depends only on the seed that comes with its index, not on the number of worker processes.

Legend: B batch, C channels, S side.
"""

import atexit
import os
import signal
from collections.abc import Generator, Iterator
from functools import partial
from weakref import WeakSet

import torch
from timm.data.loader import PrefetchLoader
from torch.utils.data import DataLoader, Dataset

from libranas.core.errors import LibranasError
from libranas.core.progress import SIGNALS
from libranas.training.bad_images import BadImages
from libranas.training.images import Images
from libranas.training.order import Batches
from libranas.training.randomness import seed_everything
from libranas.training.recipe import TrainingRecipe
from libranas.training.transforms import Look, evaluation_transform, training_transform


class _Examples(Dataset):
    """What both sets of examples have in common; ``self[key]`` is one of them."""

    def __init__(self, images: Images, transform, bad: BadImages):
        self.images, self.transform, self.bad = images, transform, bad

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, keys: list) -> list | LibranasError:
        """Give the examples of a batch, or what is wrong with one: PyTorch would add its traceback to the message."""
        try:
            return [self[key] for key in keys]
        except LibranasError as error:
            return error


class _Training(_Examples):
    """Image and label for (index, seed). The next image takes the place of one that cannot be read."""

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


class _Evaluation(_Examples):
    """Image and index for an index; None for an image that cannot be read."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int] | None:
        try:
            image = self.images.read(index)
        except Exception as error:
            self.bad.add(self.images, index, error)
            return None
        return self.transform(image), index


def _collate(look: Look, examples: list | LibranasError) -> tuple[torch.Tensor, torch.Tensor] | LibranasError:
    """uint8 (B, C, S, S) and int64 (B,), labels or indices, without the images that could not be read."""
    if isinstance(examples, LibranasError):
        return examples
    good = [example for example in examples if example is not None]
    if not good:
        return torch.empty(0, look.channels, look.size, look.size, dtype=torch.uint8), torch.empty(0, dtype=torch.int64)
    return torch.stack([image for image, _ in good]), torch.tensor([number for _, number in good])


#: Those that give batches now.
_iterators: WeakSet[Generator] = WeakSet()
os.register_at_fork(after_in_child=_iterators.clear)


@atexit.register
def _close_iterators() -> None:
    """End worker processes that are left, such as after an error: Python would ask by a signal that they ignore, and
    wait for ever."""
    for iterator in list(_iterators):
        iterator.close()


class _Deaf(DataLoader):
    """A data loader whose worker processes ignore a scheduler's signals: one blocked during the fork stays blocked."""

    def __iter__(self) -> Iterator:
        iterator = self._iterate()
        _iterators.add(iterator)
        return iterator

    def _iterate(self) -> Generator:
        """Raises the LibranasError that it gets in place of a batch."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            batches = super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        try:
            for batch in batches:
                if isinstance(batch, LibranasError):
                    raise batch
                yield batch
        finally:
            del batches  # ends its processes; the traceback of an error would keep it


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
    images: Images,
    recipe: TrainingRecipe,
    look: Look,
    batches: Batches,
    device: torch.device,
    workers: int,
    bad: BadImages,
) -> PrefetchLoader:
    """Give the micro-batches that `batches` plans: float32 (B, C, S, S) and labels, on the device."""
    dataset = _Training(images, training_transform(recipe, look), bad)
    return _loader(dataset, look, device, workers, batch_sampler=batches)


def evaluation_loader(
    images: Images, recipe: TrainingRecipe, look: Look, share: range, batch: int, device, workers: int, bad: BadImages
) -> PrefetchLoader:
    """Give each image of `share` once: batches float32 (B, C, S, S) and indices, on the device."""
    dataset = _Evaluation(images, evaluation_transform(recipe, look), bad)
    return _loader(dataset, look, device, workers, batch_size=batch, sampler=share)
