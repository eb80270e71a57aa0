"""Searchers, and the record of a search strategy.

A searcher is asked for the evaluations that come next and told what was evaluated before; it keeps nothing in between.
Evaluation number n is a pure function of the history and of the random stream (seed, strategy, n). Evaluations of one
*generation* are proposed from equal knowledge, that of the generations before, so all of them can be scored at
once, by as many workers as there are, and the history is the same. It is an append-only log: a killed search that is
started again makes the same proposals as an undisturbed one. Needs neither torch nor a model: what evaluates an
architecture is handed in.

No strategy proposes a network twice, and scores that the logs held when it began are never computed again, whatever
strategy asked for them. Strategies that run at the same time do not wait for each other's scores.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.core.random import stream_seed
from libranas.spaces import Budget, Sampler, Space
from libranas.spaces.base import network


@dataclass(frozen=True)
class Evaluated:
    """One evaluated architecture; `fitness` is -inf where a score is not finite."""

    arch: Arch
    fitness: float
    detail: dict


Evaluation = Callable[[Arch], tuple[float, dict]]


@dataclass(frozen=True)
class Searcher:
    """Proposes architectures without repetition, a generation at a time."""

    space: Space
    budget: Budget
    seed: int

    @property
    def generation(self) -> int:
        """Number of candidates proposed between two looks at the history. It never depends on the number of workers,
        as the proposals depend on it."""
        return 50

    def ask(self, history: Sequence[Evaluated]) -> Iterator[Arch]:
        """Proposals, lazily, from the number of evaluations in `history` to the end of their generation."""
        step = len(history)
        known = history[: step - step % self.generation]
        seen = {network(self.space, e.arch) for e in history}
        parents = self.chosen(known)
        while True:
            rng = np.random.default_rng(stream_seed(self.seed, "search", self.name, step))
            arch = self.child(parents, step, seen, rng) or self.newcomer(seen, rng)
            seen.add(network(self.space, arch))
            yield arch
            step += 1
            if step % self.generation == 0:
                return

    def chosen(self, known: Sequence[Evaluated]) -> list[Evaluated]:
        """Return the networks that may have children in the next generation; none before there are enough."""
        return []

    def child(self, parents: Sequence[Evaluated], step: int, seen: set[str], rng: np.random.Generator) -> Arch | None:
        """Evaluation number `step`; None: a random newcomer."""
        return None

    def newcomer(self, seen: set[str], rng: np.random.Generator) -> Arch:
        """Draw a random network of the budget that is not in `seen`; LibranasError if none is found."""
        try:
            return next(Sampler(self.space, self.budget, rng, exclude=seen))
        except LibranasError as error:
            if not seen:
                raise
            raise LibranasError(
                f"The search ({self.name}) evaluated {len(seen)} networks and finds no other one within the budget.",
                f"Set search.evaluations to {len(seen)} or less, or widen the budget or the space.",
            ) from error


def fittest(history: Sequence[Evaluated], count: int) -> list[Evaluated]:
    """The `count` best, ties in the order of evaluation."""
    return sorted(history, key=lambda e: -e.fitness)[:count]


def points(fitness_P: Sequence[float], *cost_P: Sequence[float]) -> np.ndarray:
    """Return a row (-fitness, cost, ...) for each of P candidates, as :mod:`libranas.core.pareto` minimises."""
    return np.column_stack([-np.asarray(fitness_P, dtype=np.float64), *cost_P])


@dataclass(frozen=True)
class Strategy:
    """A way to search that a configuration can name (``search.method``).

    Attributes
    ----------
    name : in the configuration, in names of files and in the random streams of its searcher
    title : in the report, as the beginning of a sentence
    make : ``make(space, budget, seed, **settings)`` gives a :class:`Searcher`; None for a strategy that has a rule of
        its own in place of the rule ``search``
    settings : keys of the config section ``search`` that `make` takes
    own_fitness : ``own_fitness(space, arch)``, what it maximises in place of the fitness of the run; it needs no scores
    note : sentence for the report about what its evaluations are
    colour : in the figures of the report
    trains : whether it trains what it proposes, in rounds
    """

    name: str
    title: str
    make: Callable[..., Searcher] | None = None
    settings: tuple[str, ...] = ()
    own_fitness: Callable[[Space, Arch], float] | None = None
    note: str = ""
    colour: str = "#0072b2"
    trains: bool = False

    @property
    def needs_objectives(self) -> bool:
        """Return whether it looks for the front of fitness against ``search.objectives``."""
        return "objectives" in self.settings

    def searcher(self, space: Space, budget: Budget, seed: int, settings: Mapping) -> Searcher:
        """Make its searcher from the config section ``search``."""
        return self.make(space, budget, seed, **{key: settings[key] for key in self.settings})

    def evaluation(self, space: Space, fitness: Evaluation) -> Evaluation:
        """Return what it maximises: `fitness`, unless it has its own."""
        if self.own_fitness is None:
            return fitness
        return lambda arch: (float(self.own_fitness(space, arch)), {})
