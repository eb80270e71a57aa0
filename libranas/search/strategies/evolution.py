"""Evolution of a population.

It follows AutoFormer (Chen et al., ICCV 2021; population 50, the 10 fittest as parents, half of a
generation mutated and half crossed) without the faults of its code: parents of different depth make legal
children, nothing is evaluated twice, infeasible budgets end in an error and the search resumes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from libranas.core.arch import Arch
from libranas.search.base import Evaluated, Searcher, Strategy, fittest
from libranas.spaces.base import network


@dataclass(frozen=True)
class Evolution(Searcher):
    """Generations of mutated and crossed parents; see the module's docstring.

    Parameters
    ----------
    population : int
        Random architectures to begin with, and size of a generation.
    parents : int
        How many of the fittest so far may have children.
    """

    population: int = 50
    parents: int = 10
    name: str = "evolution"

    #: Children tried for one proposal before a random member takes the place. Where few members are admitted, near
    #: ones run out: after every so many tries a child is mutated once more.
    ATTEMPTS = 200
    PATIENCE = 25

    @property
    def generation(self) -> int:
        return self.population

    def chosen(self, known: Sequence[Evaluated]) -> list[Evaluated]:
        return fittest(known, self.parents)

    def child(self, parents, step, seen, rng) -> Arch | None:
        if step < self.population:
            return None
        for attempt in range(self.ATTEMPTS):
            child = self.offspring(parents, step, rng)
            for _ in range(attempt // self.PATIENCE):
                child = self.space.mutate(child, rng)
            if network(self.space, child) not in seen and self.budget.admits(self.space, child):
                return child
        return None

    def offspring(self, parents: Sequence[Evaluated], step: int, rng: np.random.Generator) -> Arch:
        first, second = (parents[i].arch for i in rng.integers(len(parents), size=2))
        return self.space.cross(first, second, rng) if step % 2 else self.space.mutate(first, rng)


EVOLUTION = Strategy("evolution", "Evolution", Evolution, ("population", "parents"))
