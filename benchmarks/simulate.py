"""Searches on a published table: accuracies are looked up, so a search costs milliseconds and is repeated many times.

A search sees a *guide*, a number for each listed network: a proxy, several combined, or the accuracy itself. What it
has found is judged by the table's accuracies. Strategies are those of :mod:`libranas.search.registry`, under a budget
that admits what the table lists. Isomorphic members are one network: one row, one evaluation.

Two questions: how far below the best accuracy is the network that a guide likes best after n evaluations
(:func:`regrets`), and, with a latency beside the accuracy, how much of the true Pareto front does a guide find
(:func:`fronts`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from libranas.core import pareto
from libranas.core.errors import LibranasError
from libranas.core.random import stream_seed
from libranas.core.stats import mean_interval
from libranas.predictors.base import Calibration, Sample
from libranas.predictors.registry import COMBINERS
from libranas.published.tables import PublishedTable
from libranas.search.base import Searcher
from libranas.search.simulate import Listed, incumbents, looked_up
from libranas.search.strategies.evolution import Evolution
from libranas.search.strategies.nsga2 import NSGA2
from libranas.search.strategies.random import RandomSearch
from libranas.spaces import Space
from libranas.spaces.base import network


@dataclass(frozen=True, eq=False)
class Table:
    """A published table with one row a network.

    Attributes
    ----------
    accuracy : Series, id of a network (:func:`libranas.spaces.base.network`) to accuracy, in the table's units
    sample : what is known of the same networks without training: proxies (higher = better, as published), sizes,
        features of the representatives
    """

    name: str
    space: Space
    accuracy: pd.Series
    sample: Sample

    @classmethod
    def of(cls, table: PublishedTable) -> "Table":
        """Take the mean over the rows of a network (accuracies differ by the seed of the training)."""
        names, space = table.network_A.to_numpy(), table.space
        archs = {a.id: a for a in (space.representative(space.parse(text)) for text in table.network_A.index)}
        score_AP = table.sample.score_AP.set_axis(names).groupby(level=0).mean()
        feature_AF = pd.DataFrame([space.features(archs[name]) for name in score_AP.index], score_AP.index)
        accuracy = table.accuracy_A.set_axis(names).groupby(level=0).mean()
        return cls(table.name, space, accuracy, Sample(score_AP, score_AP["params"], feature_AF))

    @cached_property
    def best(self) -> float:
        return float(self.accuracy.max())

    def known(self, count: int, seed: int) -> pd.Index:
        """Ids of `count` random networks: the reference sample of a guide, or those whose labels it may read."""
        rng = np.random.default_rng(stream_seed(seed, "table_search", "known"))
        return self.accuracy.index[np.sort(rng.permutation(len(self.accuracy))[:count])]


@dataclass(frozen=True)
class Guide:
    """What a search maximises.

    Attributes
    ----------
    values : (table, seed) -> Series over the table's networks, higher = better
    labels : accuracies that went into the values; None: each evaluation is one
    """

    values: Callable[[Table, int], pd.Series]
    labels: int | None = 0


def single(proxy: str) -> Guide:
    """One published proxy."""
    return Guide(lambda table, seed: table.sample.score_AP[proxy])


def combined(name: str, known: int) -> Guide:
    """A combiner of :data:`libranas.predictors.registry.COMBINERS`, fitted to `known` random networks: their
    accuracies if it needs labels, and their scores as the sample that says what is usual."""
    combiner = COMBINERS[name]

    def values(table: Table, seed: int) -> pd.Series:
        ids = table.known(known, seed)
        at = table.accuracy.index.get_indexer(ids)
        predict = combiner.fit(Calibration(table.sample.take(at), table.accuracy[ids]), seed)
        return pd.Series(predict(table.sample), table.accuracy.index)

    return Guide(values, known if combiner.needs_labels else 0)


#: Evolution on the accuracies themselves: what no guide can be expected to beat.
ACCURACY = Guide(lambda table, seed: table.accuracy, None)


def proposals(searcher: Searcher, value: Mapping[str, float], evaluations: int) -> list[str]:
    """Ids of the networks that `searcher` evaluates, in order."""
    history = looked_up(searcher, lambda arch: value[network(searcher.space, arch)], evaluations)
    return [network(searcher.space, evaluated.arch) for evaluated in history]


def regret(table: Table, names: Sequence[str], value: pd.Series) -> np.ndarray:
    """Best accuracy of the table less that of the incumbent, after each evaluation; shape (evaluations,).

    The incumbent is the evaluated network with the highest value, the earlier one of equals.
    """
    fitness = value[names].to_numpy(dtype=np.float64)
    fitness = np.where(np.isfinite(fitness), fitness, -np.inf)
    return table.best - table.accuracy[names].to_numpy()[incumbents(fitness)]


#: Evaluations at which regret is reported.
POINTS = (1, 5, 10, 25, 50, 100, 150, 200)
#: Population and parents of evolution.
POPULATION = 50, 10


def regrets(
    table: Table, guides: Mapping[str, Guide], runs: int = 50, points: Sequence[int] = POINTS, seed: int = 0
) -> pd.DataFrame:
    """Regret of evolution and of random search with each guide.

    Returns
    -------
    one row a strategy, guide and number of evaluations: ``table, networks, strategy, fitness, labels,
    evaluations, runs, regret, low, high, median``. Mean over the runs with its 95 % t interval, in the units of the
    table. `labels` are the accuracies that the guide has read by then; networks that were labelled for a guide
    are not evaluated thereby.
    """
    allowed, steps = Listed(frozenset(table.accuracy.index)), max(points)
    if steps > len(table.accuracy):
        raise LibranasError(f"{table.name} lists fewer networks than {steps} evaluations.", "Evaluate fewer.")
    results: dict[tuple[str, str], list[np.ndarray]] = {}
    for run in range(runs):
        master = stream_seed(seed, "table_search", table.name, run)
        at_random = proposals(RandomSearch(table.space, allowed, master), table.accuracy, steps)
        for name, guide in guides.items():
            value = guide.values(table, master)
            evolved = proposals(Evolution(table.space, allowed, master, *POPULATION), value.to_dict(), steps)
            for strategy, names in (("evolution", evolved), ("random", at_random)):
                results.setdefault((strategy, name), []).append(regret(table, names, value))
    rows = []
    for (strategy, name), curves in results.items():
        labels = guides[name].labels
        about = {"table": table.name, "networks": len(table.accuracy), "strategy": strategy, "fitness": name}
        for n in points:
            at = [curve[n - 1] for curve in curves]
            count = {"labels": n if labels is None else labels, "evaluations": n, "runs": runs}
            found = dict(zip(("regret", "low", "high"), mean_interval(at), strict=True))
            rows.append({**about, **count, **found, "median": float(np.median(at))})
    return pd.DataFrame(rows)


# -- fronts of latency and accuracy ---------------------------------------------------------------------------------


def read_latencies(path: str | Path, space: Space, architecture: str = "net") -> pd.DataFrame:
    """Id of a network to the numbers of a CSV file with a row a member, -1 where a measurement is missing (NaN here).

    A network has the numbers of its representative, the isomorphic member with the least work: HW-NAS-Bench
    also ran operations that change nothing.
    """
    rows = pd.read_csv(path)
    archs = [space.parse(text) for text in rows.pop(architecture)]
    own = [network(space, arch) == arch.id for arch in archs]
    return rows.set_axis([arch.id for arch in archs])[own].mask(lambda x: x == -1)


#: Shares of the networks that are as fast as a limit or faster.
LIMITS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)


def fronts(
    table: Table,
    latency: pd.Series,
    guides: Mapping[str, Guide],
    runs: int = 20,
    evaluations: int = 500,
    limits: Iterable[float] = LIMITS,
    seed: int = 0,
) -> pd.DataFrame:
    """How well each guide finds networks that are accurate for their latency.

    Methods: ``ranking`` (the guide is known for all networks), ``evolution`` (NSGA-II with
    `evaluations`) and ``random`` (as many). What a method found are its networks that nothing it saw dominates in
    (latency, guide).

    Parameters
    ----------
    latency : id of a network to latency; NaN: not measured, left out

    Returns
    -------
    one row a method and guide: ``table, networks, method, fitness, labels, evaluations, runs``; ``hypervolume`` of
    the found networks' accuracies over that of the true front, with the corner at the greatest latency and the median
    accuracy of the table; ``regret``: at each limit of latency, the best accuracy within it less that of the
    found network with the highest guide within it, mean over the limits; ``found``: networks whose accuracy must be
    measured to know the front. Means over the runs, ``_low`` and ``_high``: 95 % t intervals.
    """
    ids = table.accuracy.index.intersection(latency.dropna().index)
    accuracy, latency = table.accuracy[ids], latency[ids]
    judge = _Judge(accuracy, latency, np.quantile(latency, list(limits), method="higher"))
    allowed, cost = Listed(frozenset(ids)), latency.to_dict()
    costs = (lambda arch: cost[network(table.space, arch)],)
    results: dict[tuple[str, str], list[tuple]] = {}
    for run in range(runs):
        master = stream_seed(seed, "table_search", table.name, latency.name, run)
        at_random = proposals(RandomSearch(table.space, allowed, master), accuracy, evaluations)
        for name, guide in guides.items():
            value = guide.values(table, master)[ids]
            searcher = NSGA2(table.space, allowed, master, POPULATION[0], costs=costs)
            evolved = proposals(searcher, value.to_dict(), evaluations)
            for method, names in (("ranking", ids), ("evolution", evolved), ("random", at_random)):
                results.setdefault((method, name), []).append(judge(pd.Index(names), value))
    rows = []
    for (method, name), measured in results.items():
        seen = len(ids) if method == "ranking" else evaluations
        row = {"table": table.name, "device": latency.name, "networks": len(ids), "method": method, "fitness": name}
        row |= {"labels": seen if guides[name].labels is None else guides[name].labels, "evaluations": seen}
        for what, values in zip(("hypervolume", "regret", "found"), zip(*measured, strict=True), strict=True):
            estimate = mean_interval(values)
            row |= dict(zip((what, f"{what}_low", f"{what}_high"), estimate, strict=True))
        rows.append({**row, "runs": runs})
    return pd.DataFrame(rows).drop(columns=["found_low", "found_high"])


@dataclass(frozen=True, eq=False)
class _Judge:
    """Compares the front of some networks with the true front of all.

    Attributes
    ----------
    accuracy, latency : Series over the same ids
    limits : of latency
    """

    accuracy: pd.Series
    latency: pd.Series
    limits: np.ndarray

    @cached_property
    def best(self) -> np.ndarray:
        """The best accuracy within each limit."""
        return np.array([self.accuracy[self.latency <= limit].max() for limit in self.limits])

    @cached_property
    def whole(self) -> float:
        return self.area(self.latency.index)

    def area(self, front: pd.Index) -> float:
        corner = float(self.latency.max()), -float(self.accuracy.median())
        return pareto.hypervolume(np.column_stack([self.latency[front], -self.accuracy[front]]), corner)

    def __call__(self, names: pd.Index, value: pd.Series) -> tuple[float, float, int]:
        """Return the share of the true hypervolume, the mean regret at the limits and the size of the front in
        (latency, `value`) of the networks `names`."""
        front = names[pareto.front(np.column_stack([self.latency[names], -value[names]]))]
        cost, truth = self.latency[front].to_numpy(), self.accuracy[front].to_numpy()
        # along the front the guide rises with the latency, so the pick is the last within the limit
        picks = np.searchsorted(cost, self.limits, side="right") - 1
        missed = np.where(picks >= 0, self.best - truth[picks], self.best - self.accuracy.min())
        return self.area(front) / self.whole, float(missed.mean()), len(front)
