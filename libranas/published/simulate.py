"""Searches on a published table: accuracies are looked up, so a search costs milliseconds and is repeated many times.

A search sees a *guide*, a number for each listed network: a proxy, several combined, or the accuracy itself. What it
has found is judged by the table's accuracies. Strategies are those of :mod:`libranas.search.registry`, under a budget
that admits what the table lists. Isomorphic members are one network: one row, one evaluation.

Two questions: how far below the best accuracy is the network that a guide likes best after n evaluations
(:func:`regrets`), and, with a latency beside the accuracy, how much of the true Pareto front does a guide find
(:func:`libranas.published.fronts.fronts`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
import pandas as pd

from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.core.random import stream_seed
from libranas.core.stats import mean_interval
from libranas.predictors.base import Calibration, Sample
from libranas.predictors.registry import COMBINERS
from libranas.published.tables import PublishedTable
from libranas.search.base import Evaluated, Searcher
from libranas.search.strategies.evolution import Evolution
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
class Listed:
    """A budget (see :class:`libranas.spaces.Budget`) that admits the networks with these ids."""

    networks: frozenset[str]

    def check(self, space: Space) -> None:
        if not self.networks:
            raise LibranasError("The table lists no network within the limits.", "Widen the limits.")

    def admits(self, space: Space, arch: Arch) -> bool:
        return network(space, arch) in self.networks


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
    history, names = [], []
    while len(history) < evaluations:
        for arch in list(islice(searcher.ask(history), evaluations - len(history))):
            name = network(searcher.space, arch)
            fitness = float(value[name])
            history.append(Evaluated(arch, fitness if np.isfinite(fitness) else -np.inf, {}))
            names.append(name)
    return names


def regret(table: Table, names: Sequence[str], value: pd.Series) -> np.ndarray:
    """Best accuracy of the table less that of the incumbent, after each evaluation; shape (evaluations,).

    The incumbent is the evaluated network with the highest value, the earlier one of equals.
    """
    fitness = value[names].to_numpy(dtype=np.float64)
    fitness = np.where(np.isfinite(fitness), fitness, -np.inf)
    new = np.r_[True, fitness[1:] > np.maximum.accumulate(fitness)[:-1]]
    incumbent = np.maximum.accumulate(np.where(new, np.arange(len(names)), 0))
    return table.best - table.accuracy[names].to_numpy()[incumbent]


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
