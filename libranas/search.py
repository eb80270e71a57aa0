"""Search under a budget: evolution, random search, and the largest network, all resumable.

A searcher proposes evaluation number n as a pure function of what was evaluated before and of the random
stream (seed, strategy, n). Its history is an append-only log, so a killed search that is started again makes
the same proposals as an undisturbed one, and there is no other state to save. Needs neither torch nor a model:
what evaluates an architecture is handed in.

Evolution follows AutoFormer (Chen et al., ICCV 2021; population 50, the 10 fittest as parents, half of a
generation mutated and half crossed) without the faults of its code: parents of different depth make legal
children, nothing is evaluated twice, infeasible budgets end in an error and the search resumes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from libranas.arch import Arch
from libranas.errors import LibranasError
from libranas.files import AppendLog
from libranas.progress import silent
from libranas.provenance import stream_seed
from libranas.spaces import Budget, Sampler, Space
from libranas.spaces.base import network


@dataclass(frozen=True)
class Evaluated:
    """One evaluated architecture; `fitness` is -inf where a score is not finite."""

    arch: Arch
    fitness: float
    detail: dict


@dataclass(frozen=True)
class RandomSearch:
    """Uniform members of the space within the budget, none twice."""

    space: Space
    budget: Budget
    seed: int
    name: str = "random"

    def propose(self, history: Sequence[Evaluated]) -> Arch:
        rng = np.random.default_rng(stream_seed(self.seed, "search", self.name, len(history)))
        return next(Sampler(self.space, self.budget, rng, exclude=(e.arch for e in history)))


@dataclass(frozen=True)
class Evolution:
    """Generations of mutated and crossed parents; see the module's docstring.

    Parameters
    ----------
    population : int
        Random architectures to begin with, and size of a generation.
    parents : int
        How many of the fittest so far may have children.
    """

    space: Space
    budget: Budget
    seed: int
    population: int = 50
    parents: int = 10
    name: str = "evolution"

    #: Children tried for one proposal before a random member takes the place. Where few members are admitted, near
    #: ones run out: after every so many tries a child is mutated once more.
    ATTEMPTS = 200
    PATIENCE = 25

    def propose(self, history: Sequence[Evaluated]) -> Arch:
        step = len(history)
        rng = np.random.default_rng(stream_seed(self.seed, "search", self.name, step))
        if step >= self.population:
            seen = {network(self.space, e.arch) for e in history}
            generation = step // self.population
            parents = self.chosen(history[: generation * self.population])
            for attempt in range(self.ATTEMPTS):
                first, second = (parents[i].arch for i in rng.integers(len(parents), size=2))
                child = self.space.cross(first, second, rng) if step % 2 else self.space.mutate(first, rng)
                for _ in range(attempt // self.PATIENCE):
                    child = self.space.mutate(child, rng)
                if network(self.space, child) not in seen and self.budget.admits(self.space, child):
                    return child
        return next(Sampler(self.space, self.budget, rng, exclude=(e.arch for e in history)))

    def chosen(self, history: Sequence[Evaluated]) -> list[Evaluated]:
        """The parents of the next generation."""
        return fittest(history, self.parents)


def fittest(history: Sequence[Evaluated], count: int) -> list[Evaluated]:
    """The `count` best, ties in the order of evaluation."""
    return sorted(history, key=lambda e: -e.fitness)[:count]


def run(
    searcher,
    evaluate: Callable[[Arch], tuple[float, dict]],
    evaluations: int,
    log_path: str | Path,
    key: str,
    progress: Callable = silent,
) -> list[Evaluated]:
    """Evaluate `evaluations` proposals of `searcher`, going on from the log.

    Parameters
    ----------
    evaluate : callable arch -> (fitness, JSON-ready details)
        A fitness that is not a number counts as -inf.
    key : str
        Names everything the fitness depends on; records under another key are not used.
    """
    history: list[Evaluated] = []
    with AppendLog(log_path) as log:
        for record in log.records:
            if record["key"] == key:
                history.append(Evaluated(Arch.from_json(record["arch"]), record["fitness"], record["detail"]))
        for step in progress(range(evaluations), evaluations, f"search: {searcher.name}"):
            if step < len(history):
                continue
            arch = searcher.propose(history)
            fitness, detail = evaluate(arch)
            fitness = float(fitness) if fitness == fitness else float("-inf")
            log.append({"key": key, "arch": arch.json, "fitness": fitness, "detail": detail})
            history.append(Evaluated(arch, fitness, detail))
    return history[:evaluations]


def strategy(name: str, space: Space, budget: Budget, seed: int, settings: dict, fitness: Callable):
    """A searcher and what it maximises, for one of the strategies of the workflow.

    ``evolution`` and ``random`` maximise `fitness`; ``params`` is evolution on the number of parameters.

    Parameters
    ----------
    settings : dict with ``population`` and ``parents``
    """
    if name == "random":
        return RandomSearch(space, budget, seed), fitness
    searcher = Evolution(space, budget, seed, settings["population"], settings["parents"], name)
    if name == "evolution":
        return searcher, fitness
    if name == "params":
        return searcher, lambda arch: (float(space.params(arch)), {})
    raise ValueError(f"unknown strategy {name!r}")


def history_table(history: Sequence[Evaluated], space: Space, first: int = 1) -> pd.DataFrame:
    """One row an evaluation: ``evaluation, id, fitness, best`` (so far), ``params, macs``, scores, ``architecture``.

    `first` is the number of the first: what was scored before to get there counts.
    """
    best = np.maximum.accumulate([e.fitness for e in history])
    return pd.DataFrame(
        {
            "evaluation": n,
            "id": e.arch.id,
            "fitness": e.fitness,
            "best": b,
            "params": space.params(e.arch),
            "macs": space.macs(e.arch),
            **{f"score_{name}": value for name, value in e.detail.items()},
            "architecture": e.arch.json,
        }
        for n, (e, b) in enumerate(zip(history, best, strict=True), start=first)
    )


#: Strategies that find the winner; a workflow runs one of them.
METHODS = ("evolution", "pruning")

#: Greatest difference in parameters between the winner and the random control.
EQUAL_SIZE = 0.02


def method_of(strategies: Iterable[str]) -> str:
    """The one of the strategies that finds the winner."""
    return next(name for name in strategies if name in METHODS)


def select(
    histories: dict[str, pd.DataFrame], space: Space, budget: Budget, seed: int, reference: Arch | None = None
) -> dict[str, dict]:
    """The winner (fittest of the method) and its controls, JSON-ready.

    Roles: ``winner``; ``random``, a random member of equal size (:data:`EQUAL_SIZE`); ``params_max``, the largest
    network that the params-only search found; ``reference``, a member that the user names, if any, of any size. A
    control can be the winner itself; then ``same_as`` says so.
    """
    method = method_of(histories)

    def fittest_row(table):
        row = table.loc[table["fitness"].idxmax()]
        if not np.isfinite(row["fitness"]):
            raise LibranasError(
                "No candidate of the search has a finite fitness.",
                f"Look at the scores in search/{method}.csv and leave the failing proxies out of score.proxies.",
            )
        return Arch.from_json(row["architecture"])

    winner, largest = fittest_row(histories[method]), fittest_row(histories["params"])
    control = equal_size(space, budget, winner, EQUAL_SIZE, seed, exclude=(largest,))
    roles = {"winner": winner, "random": control, "params_max": largest}
    if reference is not None:
        roles["reference"] = reference
    selected = {}
    for role, arch in roles.items():
        selected[role] = {
            "id": arch.id,
            "architecture": arch.json,
            "params": space.params(arch),
            "macs": space.macs(arch),
        }
        if role != "winner" and arch == winner:
            selected[role]["same_as"] = "winner"
    return selected


def equal_size(space: Space, budget: Budget, like: Arch, tolerance: float, seed: int, exclude=()) -> Arch:
    """A random member whose parameters lie within `tolerance` (0.02: 2 %) of those of `like`, and not `like`.

    The budget's MACs still hold; the window of parameters is the tolerance cut with the budget's. Drawn by rejection;
    a size that is too rare for that is reached by mutations of random members that bring it no further away.
    """
    size = space.params(like)
    low, high = int(np.ceil(size * (1 - tolerance))), int(size * (1 + tolerance))
    if budget.params:
        low, high = max(low, budget.params[0]), min(high, budget.params[1])
    rng = np.random.default_rng(stream_seed(seed, "search", "equal_size", like.id))
    window = Budget((low, high), budget.macs)
    try:
        return next(Sampler(space, window, rng, exclude=(like, *exclude)))
    except LibranasError:
        if found := _walk(space, window, rng, {network(space, arch) for arch in (like, *exclude)}):
            return found
        raise


def _walk(space: Space, window: Budget, rng: np.random.Generator, exclude: set[str]) -> Arch | None:
    """A member within the window that is not excluded; None if no walk of some hundred mutations meets one."""

    def away(arch: Arch) -> float:
        """How far outside of the windows, relative to them."""
        sides = ((window.params, space.params), (window.macs, space.macs))
        return sum(max(w[0] / count(arch) - 1, count(arch) / w[1] - 1, 0) for w, count in sides if w)

    for _ in range(100):
        arch = space.sample(rng)
        for _ in range(300):
            child = space.mutate(arch, rng)
            if away(child) <= away(arch):
                arch = child
            if window.admits(space, arch) and network(space, arch) not in exclude:
                return arch
    return None
