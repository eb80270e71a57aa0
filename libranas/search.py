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

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from libranas import pareto
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


@dataclass(frozen=True)
class RandomSearch(Searcher):
    """Uniform members of the space within the budget, none twice."""

    name: str = "random"


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
    """What :mod:`libranas.pareto` minimises: a row (-fitness, cost, ...) each of (fitness, architecture)."""
    return np.array([[-fitness, *(cost(arch) for cost in costs)] for fitness, arch in members])


def fittest(history: Sequence[Evaluated], count: int) -> list[Evaluated]:
    """The `count` best, ties in the order of evaluation."""
    return sorted(history, key=lambda e: -e.fitness)[:count]


def run(
    searcher: Searcher,
    evaluate: Callable[[Arch], tuple[float, dict]],
    evaluations: int,
    log_path: str | Path,
    key: str,
    progress: Callable = silent,
    each: Callable = map,
) -> list[Evaluated]:
    """Evaluate `evaluations` proposals of `searcher`, taking from the log what is there.

    Parameters
    ----------
    evaluate : callable arch -> (fitness, JSON-ready details)
        A fitness that is not a number counts as -inf.
    key : str
        Names everything the fitness depends on; records under another key are not used.
    each : callable (evaluate, architectures) -> their results in order
        ``map``, or one that shares the architectures out (:func:`libranas.scoring.shared_out`).
    """
    history: list[Evaluated] = []

    def evaluated(log: AppendLog) -> Iterator[Evaluated]:
        known = {record["arch"]: record for record in log.records if record["key"] == key}
        while len(history) < evaluations:
            proposed = list(islice(searcher.ask(history), evaluations - len(history)))
            results = iter(each(evaluate, [arch for arch in proposed if arch.json not in known]))
            for arch in proposed:
                if not (record := known.get(arch.json)):
                    fitness, detail = next(results)
                    fitness = float(fitness) if fitness == fitness else float("-inf")
                    record = {"key": key, "arch": arch.json, "fitness": fitness, "detail": detail}
                    log.append(record)
                history.append(Evaluated(arch, record["fitness"], record["detail"]))
                yield history[-1]

    with AppendLog(log_path) as log:
        for _ in progress(evaluated(log), evaluations, f"search: {searcher.name}"):
            pass
    return history


#: Strategies that can find the winner; the last one shrinks a supernet and is no searcher (:mod:`libranas.pruning`).
METHODS = ("evolution", "ageing", "nsga2", "random", "params", "pruning")

#: What NSGA-II can hold against fitness.
OBJECTIVES = ("params", "macs", "latency")


def costs_of(objectives: Iterable[str], space: Space, budget: Budget) -> dict[str, Callable[[Arch], float]]:
    """Objective to what it counts; latency is looked up by the budget's clock."""
    known = {"params": space.params, "macs": space.macs, "latency": budget.clock}
    return {name: known[name] for name in objectives}


def strategy(name: str, space: Space, budget: Budget, seed: int, settings: dict, fitness: Callable):
    """A searcher and what it maximises, for one of the strategies of the workflow.

    All maximise `fitness`, but for ``params``, which is evolution on the number of parameters.

    Parameters
    ----------
    settings : dict with ``population``, ``parents`` and, for ``nsga2``, ``objectives``
    """
    if name == "random":
        return RandomSearch(space, budget, seed), fitness
    common = space, budget, seed, settings["population"], settings["parents"]
    if name == "params":
        return Evolution(*common, name), lambda arch: (float(space.params(arch)), {})
    if name == "nsga2":
        return NSGA2(*common, costs=tuple(costs_of(settings["objectives"], space, budget).values())), fitness
    if kind := {"evolution": Evolution, "ageing": AgeingEvolution}.get(name):
        return kind(*common), fitness
    raise ValueError(f"unknown strategy {name!r}")


def history_table(
    history: Sequence[Evaluated],
    space: Space,
    first: int = 1,
    budget: Budget | None = None,
    objectives: Sequence[str] = (),
) -> pd.DataFrame:
    """One row an evaluation: ``evaluation, id, fitness, best`` (so far), ``params, macs``, scores, ``architecture``.

    With a budget that looks it up also ``latency`` (milliseconds), and with objectives ``front``: whether nothing that
    was evaluated is both fitter and cheaper.

    Parameters
    ----------
    first : number of the first evaluation: what was scored before to get there counts
    """
    best = np.maximum.accumulate([e.fitness for e in history])
    table = pd.DataFrame(
        {
            "evaluation": n,
            "id": e.arch.id,
            "fitness": e.fitness,
            "best": b,
            "params": space.params(e.arch),
            "macs": space.macs(e.arch),
            **({"latency": budget.clock(e.arch)} if budget and budget.clock else {}),
            **{f"score_{name}": value for name, value in e.detail.items()},
            "architecture": e.arch.json,
        }
        for n, (e, b) in enumerate(zip(history, best, strict=True), start=first)
    )
    if objectives:
        table["front"] = table.index.isin(pareto.front(_points_of(table, objectives)))
    return table


def _points_of(table: pd.DataFrame, objectives: Sequence[str]) -> np.ndarray:
    return np.column_stack([-table["fitness"], *(table[name] for name in objectives)])


#: Greatest difference in parameters between the winner and the random control, where the space has such a network.
EQUAL_SIZE = 0.02
#: Networks that are measured for one role before none is taken to keep to the limits of latency, after how many the
#: table is corrected by them, and how many are looked at in it.
TRIES, SOME, LOOKED_AT = 20, 5, 2000

#: How the winner is taken from what was evaluated.
WINNERS = ("fittest", "balanced")


def select(
    histories: Mapping[str, pd.DataFrame],
    space: Space,
    budget: Budget,
    seed: int,
    winner: str = "fittest",
    objectives: Sequence[str] = (),
    measured: Callable[[Arch], dict] | None = None,
    reference: Arch | None = None,
) -> dict[str, dict]:
    """The winner and its controls, JSON-ready.

    Roles: ``winner``; ``random``, a random member of equal size (:data:`EQUAL_SIZE`), or the nearest in size that is
    found, with ``params_difference``, what it has more or less as a share of the winner's parameters; ``params_max``,
    the largest network that the params-only search found; ``reference``, a member that the user names, if any, of any
    size and latency. A control can be the winner itself; then ``same_as`` says so.

    Parameters
    ----------
    histories : the method that finds the winner first; ``params`` among them
    winner : ``fittest``, or ``balanced``: of the front against `objectives` the best compromise
        (:func:`libranas.pareto.balanced`)
    measured : the latency of a network as :func:`libranas.latency.record` gives it. Where the budget limits latency, a
        role is given to the first candidate whose measured median keeps to the limits; the ones before it are kept
        under ``rejected``. From :data:`SOME` of them on the machine is taken to be slower or faster than when the table
        was measured, by their median factor, and who would not keep to the limits by that is not measured
    """
    method = next(iter(histories))
    low, high = budget.latency if measured and budget.latency else (-np.inf, np.inf)

    def candidates(table: pd.DataFrame, rule: str) -> Iterator[Arch]:
        table = table[np.isfinite(table["fitness"])]
        if table.empty:
            raise LibranasError(
                "No candidate of the search has a finite fitness.",
                f"Look at the scores in search/{method}.csv and leave the failing proxies out of score.proxies.",
            )
        if rule == "balanced":
            table = table[table["front"]]
            order = pareto.balanced(_points_of(table, objectives))
        else:
            order = np.argsort(-table["fitness"].to_numpy(), kind="stable")
        return (Arch.from_json(table["architecture"].iloc[i]) for i in order)

    def entry_of(arch: Arch) -> dict:
        entry = {"id": arch.id, "architecture": arch.json, "params": space.params(arch), "macs": space.macs(arch)}
        return entry | ({"latency": measured(arch)} if measured else {})

    def taken(found: Iterator[Arch], role: str) -> tuple[Arch, dict]:
        rejected, factors = [], []
        for arch in islice(found, LOOKED_AT):
            if len(rejected) >= SOME and not low <= np.median(factors) * budget.clock(arch) <= high:
                continue
            entry = entry_of(arch)
            if not measured or low <= entry["latency"]["median"] <= high:
                return arch, {**entry, **({"rejected": rejected} if rejected else {})}
            rejected.append(entry)
            factors.append(entry["latency"]["median"] / budget.clock(arch))
            if len(rejected) == TRIES:
                break
        times = [e["latency"]["median"] for e in rejected]
        raise LibranasError(
            f"No candidate for {role} keeps to budget.latency {list(budget.latency)} when it is measured; {len(times)} "
            f"were, {min(times):.3f} to {max(times):.3f} ms, {np.median(factors):.3f} times what the table says.",
            "Let nothing else run while latencies are measured, delete latency/table.json of the run to measure the "
            "table again, or widen the budget.",
        )

    best, entry = taken(candidates(histories[method], winner), "winner")
    largest, largest_entry = taken(candidates(histories["params"], "fittest"), "params_max")
    control, control_entry = taken(equal_size(space, budget, best, EQUAL_SIZE, seed, [largest]), "random")
    difference = space.params(control) / space.params(best) - 1
    if abs(difference) > EQUAL_SIZE:
        control_entry["params_difference"] = difference
    roles = {"winner": entry, "random": control_entry, "params_max": largest_entry}
    if reference is not None:
        roles["reference"] = entry_of(reference)
    for role, other in roles.items():
        if role != "winner" and other["id"] == best.id:
            other["same_as"] = "winner"
    return roles


def equal_size(
    space: Space, budget: Budget, like: Arch, tolerance: float, seed: int, exclude: Iterable[Arch] = ()
) -> Iterator[Arch]:
    """Random members whose parameters lie within `tolerance` (0.02: 2 %) of those of `like`, and not `like`.

    The budget's other limits still hold; the window of parameters is the tolerance cut with the budget's. Drawn by
    rejection; a size that is too rare for that is reached by mutations of random members that bring it no further away,
    for up to :data:`TRIES` networks. Where these do not reach it either, the member of the budget that came nearest in
    size.
    """
    size = space.params(like)
    low, high = int(np.ceil(size * (1 - tolerance))), int(size * (1 + tolerance))
    if budget.params:
        low, high = max(low, budget.params[0]), min(high, budget.params[1])
    rng = np.random.default_rng(stream_seed(seed, "search", "equal_size", like.id))
    window = replace(budget, params=(low, high))
    excluded = {network(space, arch) for arch in (like, *exclude)}
    asked = len(excluded)
    try:
        yield from Sampler(space, window, rng, exclude=excluded)
    except LibranasError:
        for _ in range(TRIES):
            if not (arch := _walk(space, budget, window, size, rng, excluded)):
                break
            excluded.add(network(space, arch))
            yield arch
        if len(excluded) == asked:
            raise


def _walk(
    space: Space, budget: Budget, window: Budget, size: int, rng: np.random.Generator, exclude: set[str]
) -> Arch | None:
    """The first member within the window that walks of some hundred mutations meet; else the nearest of the budget.

    Parameters
    ----------
    size : parameters that are wanted
    exclude : networks that do not count
    """
    limits = window.limits(space)
    nearest, gap = None, np.inf

    def away(arch: Arch) -> float:
        """How far outside of the windows, relative to them."""
        counts = [(limit.window, limit.count(arch)) for limit in limits]
        return sum(max(w[0] / count - 1, count / w[1] - 1, 0) for w, count in counts)

    for _ in range(100):
        arch = space.sample(rng)
        for _ in range(300):
            child = space.mutate(arch, rng)
            if away(child) <= away(arch):
                arch = child
            new = network(space, child) not in exclude
            if new and window.admits(space, child):
                return child
            if new and abs(space.params(child) - size) < gap and budget.admits(space, child):
                nearest, gap = child, abs(space.params(child) - size)
    return nearest
