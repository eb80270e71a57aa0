"""Pareto fronts of searches on a published table."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from libranas.core import pareto
from libranas.core.random import stream_seed
from libranas.core.stats import mean_interval
from libranas.published.simulate import POPULATION, Guide, Listed, Table, proposals
from libranas.search.strategies.nsga2 import NSGA2
from libranas.search.strategies.random import RandomSearch
from libranas.spaces import Space
from libranas.spaces.base import network


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
            row |= {what: estimate.value, f"{what}_low": estimate.low, f"{what}_high": estimate.high}
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
