"""Regularised evolution."""

from collections.abc import Sequence
from dataclasses import dataclass

from libranas.core.arch import Arch
from libranas.search.base import Evaluated, Strategy, fittest
from libranas.search.strategies.evolution import Evolution


@dataclass(frozen=True)
class AgeingEvolution(Evolution):
    """Regularised evolution (Real et al., AAAI 2019): who dies is the oldest, not the worst.

    A child is a mutation of the fittest of `parents` random ones among the latest `population`. The published search
    proposes one at a time, or as workers become free; here ten at a time, so that workers change nothing.
    """

    name: str = "ageing"

    BATCH = 10

    @property
    def generation(self) -> int:
        return min(self.BATCH, self.population)

    def chosen(self, known: Sequence[Evaluated]) -> list[Evaluated]:
        return list(known[-self.population :])

    def offspring(self, parents, step, rng) -> Arch:
        among = rng.choice(len(parents), size=min(self.parents, len(parents)), replace=False)
        return self.space.mutate(fittest([parents[i] for i in sorted(among)], 1)[0].arch, rng)


AGEING = Strategy("ageing", "Regularised evolution", AgeingEvolution, ("population", "parents"))
