"""NSGA-II: the front of fitness against costs."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from libranas.core import pareto
from libranas.core.arch import Arch
from libranas.search.base import Evaluated
from libranas.search.evolution import Evolution
from libranas.spaces import Budget, Space


@dataclass(frozen=True)
class NSGA2(Evolution):
    """NSGA-II (Deb et al., 2002) for the front of fitness against costs; sorting and crowding are pymoo's.

    The `population` best of all so far are parents, by front and then by crowding; of two random ones the better has
    the child. Mutation and crossing are those of the space, half each, as in :class:`Evolution`.

    Parameters
    ----------
    costs : functions of an architecture, to be minimised
    """

    name: str = "nsga2"
    costs: tuple[Callable[[Arch], float], ...] = ()

    def chosen(self, known: Sequence[Evaluated]) -> list[Evaluated]:
        if not known:
            return []
        order = pareto.best_first(points([(e.fitness, e.arch) for e in known], self.costs), self.population)
        return [known[i] for i in order]

    def offspring(self, parents, step, rng) -> Arch:
        first, second = (parents[min(rng.integers(len(parents), size=2))].arch for _ in range(2))
        return self.space.cross(first, second, rng) if step % 2 else self.space.mutate(first, rng)


def points(members: Iterable[tuple[float, Arch]], costs: Sequence[Callable[[Arch], float]]) -> np.ndarray:
    """What :mod:`libranas.core.pareto` minimises: a row (-fitness, cost, ...) each of (fitness, architecture)."""
    return np.array([[-fitness, *(cost(arch) for cost in costs)] for fitness, arch in members])


#: What NSGA-II can hold against fitness.
OBJECTIVES = ("params", "macs", "latency")


def costs_of(objectives: Iterable[str], space: Space, budget: Budget) -> dict[str, Callable[[Arch], float]]:
    """Objective to what it counts; latency is looked up by the budget's clock."""
    known = {"params": space.params, "macs": space.macs, "latency": budget.clock}
    return {name: known[name] for name in objectives}
