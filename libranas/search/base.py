"""Search under a budget: several strategies with one interface, all resumable.

A searcher is asked for the evaluations that come next and told what was evaluated before; it keeps nothing in between.
Evaluation number n is a pure function of the history and of the random stream (seed, strategy, n). Evaluations of one
*generation* are proposed from equal knowledge, that of the generations before, so all of them can be scored at
once, by as many workers as there are, and the history is the same. It is an append-only log: a killed search that is
started again makes the same proposals as an undisturbed one. Needs neither torch nor a model: what evaluates an
architecture is handed in.

No strategy proposes a network twice, and scores that the logs held when it began are never computed again, whatever
strategy asked for them. Strategies that run at the same time do not wait for each other's scores.

Evolution follows AutoFormer (Chen et al., ICCV 2021; population 50, the 10 fittest as parents, half of a
generation mutated and half crossed) without the faults of its code: parents of different depth make legal
children, nothing is evaluated twice, infeasible budgets end in an error and the search resumes.
"""

from collections.abc import Iterator, Sequence
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


@dataclass(frozen=True)
class Searcher:
    """What every strategy shares: proposals without repetition, a generation at a time."""

    space: Space
    budget: Budget
    seed: int

    @property
    def generation(self) -> int:
        """Evaluations that are proposed from equal knowledge. Never a number of workers: the proposals depend on it."""
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
        """Who may have children in the next generation; none before there are enough."""
        return []

    def child(self, parents: Sequence[Evaluated], step: int, seen: set[str], rng: np.random.Generator) -> Arch | None:
        """Evaluation number `step`; None: a random newcomer."""
        return None

    def newcomer(self, seen: set[str], rng: np.random.Generator) -> Arch:
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
