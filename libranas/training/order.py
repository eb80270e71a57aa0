"""Plan which images an update sees and in which order, for any number of processes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from libranas.core.errors import LibranasError
from libranas.core.random import stream_seed
from libranas.training.recipe import TrainingRecipe
from libranas.training.settings import Settings


@dataclass(frozen=True)
class Plan:
    """The batches of a run, cut into micro-batches. Repeated draws of an image come to different ones, as in DeiT.

    Attributes
    ----------
    count : images of the training set
    batch : images of an update
    micro_batches : equal parts of a batch; every process takes its share of them
    repeats : draws of an image in a batch
    """

    count: int
    batch: int
    micro_batches: int
    repeats: int
    seed: int

    @property
    def updates(self) -> int:
        """Number of updates of an epoch. Images that do not fill a batch are left out, others in each epoch."""
        return self.count // self.batch

    def order(self, epoch: int) -> np.ndarray:
        """Return the indices of the images of an epoch, in their order (updates x batch)."""
        rng = np.random.default_rng(stream_seed(self.seed, "order", epoch))
        wanted = self.updates * self.batch
        if self.repeats == 1:
            return rng.permutation(self.count)[:wanted]
        return np.repeat(rng.permutation(self.count)[: -(-wanted // self.repeats)], self.repeats)[:wanted]

    def micro_batch(self, order: np.ndarray, epoch: int, update: int, part: int) -> list[tuple[int, int]]:
        """Return index and seed of each image of one micro-batch; `update` counts within the epoch."""
        places = range(update * self.batch + part, (update + 1) * self.batch, self.micro_batches)
        return [(int(order[p]), stream_seed(self.seed, "image", epoch, p)) for p in places]


def make_plan(recipe: TrainingRecipe, count: int, settings: Settings, processes: int) -> Plan:
    """Plan the batches of `count` images; LibranasError if they cannot be cut into equal micro-batches."""
    batch = recipe.batch_size
    micro = min(settings.micro_batch or batch // processes, batch)
    parts = batch // max(1, micro)
    if not micro or batch % micro or parts % processes or (recipe.mixes and micro % 2):
        raise LibranasError(
            f"A batch of {batch} images cannot be cut into equal {'even ' * recipe.mixes}parts of {micro} "
            f"for {processes} process(es).",
            "Choose a micro-batch that, times the number of processes, divides the batch.",
        )
    return Plan(count, batch, parts, recipe.repeats, settings.seed)


class Batches:
    """Batch sampler: gives the micro-batches of one process, from update `first` to the end of `epoch`."""

    def __init__(self, plan: Plan, parts: Sequence[int]):
        self.plan, self.parts, self.epoch, self.first = plan, parts, 0, 0

    def __len__(self) -> int:
        return (self.plan.updates - self.first) * len(self.parts)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, order = self.epoch, self.plan.order(self.epoch)
        for update in range(self.first, self.plan.updates):
            for part in self.parts:
                yield self.plan.micro_batch(order, epoch, update, part)
