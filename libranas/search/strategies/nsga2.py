"""NSGA-II: the front of fitness against costs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from libranas.core import pareto
from libranas.core.arch import Arch
from libranas.search.base import Evaluated, Strategy, points
from libranas.search.strategies.evolution import Evolution
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
        costs = ([cost(e.arch) for e in known] for cost in self.costs)
        return [known[i] for i in pareto.best_first(points([e.fitness for e in known], *costs), self.population)]

    def offspring(self, parents, step, rng) -> Arch:
        first, second = (parents[min(rng.integers(len(parents), size=2))].arch for _ in range(2))
        return self.space.cross(first, second, rng) if step % 2 else self.space.mutate(first, rng)


#: Objectives to hold against fitness: what each one counts. Latency is looked up by the budget's clock.
OBJECTIVES: dict[str, Callable[[Space, Budget], Callable[[Arch], float]]] = {
    "params": lambda space, budget: space.params,
    "macs": lambda space, budget: space.macs,
    "latency": lambda space, budget: budget.clock,
}


def _make(space: Space, budget: Budget, seed: int, population: int, parents: int, objectives: Sequence[str]) -> NSGA2:
    costs = tuple(OBJECTIVES[name](space, budget) for name in objectives)
    return NSGA2(space, budget, seed, population, parents, costs=costs)


NSGA_II = Strategy("nsga2", "NSGA-II", _make, ("population", "parents", "objectives"))
