"""Searches on a published table: accuracies are looked up, so a search costs milliseconds and is repeated many times.

A search sees a *guide*, a number for each listed network: a proxy, several combined, or the accuracy itself. What it
has found is judged by the table's accuracies. Strategies are those of :mod:`libranas.search`, under a budget that
admits what the table lists. Isomorphic members are one network: one row, one evaluation.

Two questions: how far below the best accuracy is the network that a guide likes best after n evaluations
(:func:`regrets`), and, with a latency beside the accuracy, how much of the true Pareto front does a guide find
(:func:`fronts`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from libranas import pareto
from libranas.accuracy_table import read_table
from libranas.arch import Arch
from libranas.combiners import COMBINERS, Calibration, Sample
from libranas.errors import LibranasError
from libranas.provenance import stream_seed
from libranas.report import figure
from libranas.search import NSGA2, Evaluated, Evolution, RandomSearch, Searcher
from libranas.spaces import Space
from libranas.spaces.base import network
from libranas.stats import mean_interval


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
    def read(
        cls,
        path: str | Path,
        space: Space,
        extra: pd.DataFrame | None = None,
        architecture: str = "arch",
        accuracy: str = "val_accuracy",
    ):
        """From a CSV file with a column of architectures, one of accuracies and one a proxy.

        `extra` has further scores, as for :func:`libranas.published.read_table`. Several rows of one network are
        averaged (accuracies differ by the seed of the training).
        """
        rows = read_table(path, space, architecture, accuracy)
        scores = pd.read_csv(path, index_col=architecture).drop(columns=accuracy).astype(np.float64)
        if extra is not None:
            scores = scores.join(extra)
        if "params" not in scores:
            raise LibranasError(f"{path} has no column params.", "Add the number of parameters of each architecture.")
        archs = {arch.id: arch for arch in map(space.representative, rows["arch"])}
        names = [network(space, arch) for arch in rows["arch"]]
        score_AP = scores.set_axis(names).groupby(level=0).mean()
        feature_AF = pd.DataFrame([space.features(archs[name]) for name in score_AP.index], score_AP.index)
        accuracy = pd.Series(rows["accuracy"].to_numpy(), names, name="accuracy").groupby(level=0).mean()
        return cls(Path(path).stem, space, accuracy, Sample(score_AP, score_AP["params"], feature_AF))

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
    """A combiner of :data:`libranas.combiners.COMBINERS`, fitted to `known` random networks: their accuracies if it
    needs labels, and their scores as the sample that says what is usual."""
    combiner = COMBINERS[name]

    def values(table: Table, seed: int) -> pd.Series:
        ids = table.known(known, seed)
        at = table.accuracy.index.get_indexer(ids)
        predict = combiner.fit(Calibration(table.sample.take(at), table.accuracy[ids]), seed)
        return pd.Series(predict(table.sample), table.accuracy.index)

    return Guide(values, known if combiner.needs_labels else 0)


#: Evolution on the accuracies themselves: what no guide can be expected to beat.
ACCURACY = Guide(lambda table, seed: table.accuracy, None)


# -- searches -------------------------------------------------------------------------------------------------


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
POPULATION, PARENTS = 50, 10


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
            evolution = Evolution(table.space, allowed, master, POPULATION, PARENTS)
            evolved = proposals(evolution, value.to_dict(), steps)
            for strategy, names in (("evolution", evolved), ("random", at_random)):
                results.setdefault((strategy, name), []).append(regret(table, names, value))
    rows = []
    for (strategy, name), curves in results.items():
        for n in points:
            at = [curve[n - 1] for curve in curves]
            labels = guides[name].labels
            estimate = mean_interval(at)
            rows.append(
                {
                    "table": table.name,
                    "networks": len(table.accuracy),
                    "strategy": strategy,
                    "fitness": name,
                    "labels": n if labels is None else labels,
                    "evaluations": n,
                    "runs": runs,
                    "regret": estimate.value,
                    "low": estimate.low,
                    "high": estimate.high,
                    "median": float(np.median(at)),
                }
            )
    return pd.DataFrame(rows)


# -- latency --------------------------------------------------------------------------------------------------


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
    corner = float(latency.max()), float(accuracy.median())

    def area(front: pd.Index) -> float:
        edge = corner[0], -corner[1]
        return pareto.hypervolume(np.column_stack([latency[front], -accuracy[front]]), edge)

    whole = area(ids)
    bounds = np.quantile(latency, list(limits), method="higher")
    best = np.array([accuracy[latency <= b].max() for b in bounds])

    def judged(names: pd.Index, value: pd.Series) -> tuple[float, float, int]:
        front = names[pareto.front(np.column_stack([latency[names], -value[names]]))]
        cost, truth = latency[front].to_numpy(), accuracy[front].to_numpy()
        # along the front the guide rises with the latency, so the pick is the last within the limit
        picks = np.searchsorted(cost, bounds, side="right") - 1
        missed = np.where(picks >= 0, best - truth[picks], best - accuracy.min())
        return area(front) / whole, float(missed.mean()), len(front)

    allowed, cost = Listed(frozenset(ids)), latency.to_dict()
    results: dict[tuple[str, str], list[tuple]] = {}
    for run in range(runs):
        master = stream_seed(seed, "table_search", table.name, latency.name, run)
        at_random = proposals(RandomSearch(table.space, allowed, master), accuracy, evaluations)
        for name, guide in guides.items():
            value = guide.values(table, master)[ids]
            costs = (lambda arch: cost[network(table.space, arch)],)
            searcher = NSGA2(table.space, allowed, master, POPULATION, costs=costs)
            evolved = proposals(searcher, value.to_dict(), evaluations)
            for method, names in (("ranking", ids), ("evolution", evolved), ("random", at_random)):
                results.setdefault((method, name), []).append(judged(pd.Index(names), value))
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


# -- figures --------------------------------------------------------------------------------------------------

#: Okabe and Ito, in an order in which neighbours differ.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a8188")


def _look(names: Sequence[str]) -> dict[str, dict]:
    """Colour and line of each fitness; accuracy, the bound, in black."""
    lines = ("-", "--", ":")
    rest = [name for name in names if name != "accuracy"]
    count = len(_COLOURS)
    looks = {n: {"color": _COLOURS[i % count], "linestyle": lines[i // count]} for i, n in enumerate(rest)}
    return looks | {"accuracy": {"color": "#000000", "linestyle": "-"}}


def draw_regrets(rows: pd.DataFrame) -> str:
    """SVG of the mean regret of evolution against evaluations, one table, a line a guide; without the very first ones,
    which are random and alike."""
    rows = rows[rows["evaluations"] >= min(5, rows["evaluations"].max())]
    evolution = rows[rows["strategy"] == "evolution"]
    looks = _look(list(dict.fromkeys(evolution["fitness"])))

    def draw(axes):
        for name, part in evolution.groupby("fitness", sort=False):
            axes.plot(part["evaluations"], part["regret"], linewidth=1.8, label=name, **looks[name])
            axes.fill_between(
                part["evaluations"], part["low"], part["high"], color=looks[name]["color"], alpha=0.1, lw=0
            )
        other = rows[(rows["strategy"] == "random") & (rows["fitness"] == "accuracy")]
        axes.plot(
            other["evaluations"], other["regret"], color="#000000", linestyle="--", label="accuracy, random search"
        )
        axes.set_xscale("log")
        points = [p for p in sorted(set(rows["evaluations"])) if p != 150]  # 150 and 200 would overlap
        axes.set_xticks(points, [str(p) for p in points])
        axes.minorticks_off()
        axes.set_xlabel("evaluations (evolution)")
        axes.set_ylabel("regret of the incumbent")
        axes.set_title(f"{rows['table'].iloc[0]}, {rows['runs'].iloc[0]} runs: mean and 95 % interval", fontsize=9)
        axes.grid()
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)

    return figure(draw, 7.5, 3.8)


def draw_fronts(rows: pd.DataFrame) -> str:
    """SVG of the regret at limits of latency, a panel a device, a line a guide."""
    names, devices = (list(dict.fromkeys(rows[c])) for c in ("fitness", "device"))
    marks = {"ranking": ("o", "#0072b2"), "evolution": ("D", "#d55e00"), "random": ("|", "#7a8188")}

    def draw(axes):
        page = axes.figure
        axes.remove()
        for i, (panel, device) in enumerate(
            zip(page.subplots(1, len(devices), sharey=True, squeeze=False)[0], devices, strict=True)
        ):
            for method, (mark, colour) in marks.items():
                part = rows[(rows["device"] == device) & (rows["method"] == method)].set_index("fitness").loc[names]
                places = range(len(names), 0, -1)
                panel.plot(part["regret"], places, mark, color=colour, markersize=5, label=method)
                panel.hlines(places, part["regret_low"], part["regret_high"], color=colour, alpha=0.5)
            panel.set_title(device, fontsize=9)
            panel.set_yticks(list(places), names)
            panel.tick_params(axis="y", length=0)
            panel.set_xlim(left=0)
            panel.grid()
            if i == 0:
                page.legend(*panel.get_legend_handles_labels(), loc="outside upper right", ncols=3, fontsize=8)
        page.supxlabel("accuracy lost against the true front, mean over limits of latency", fontsize=9)

    return figure(draw, 1.5 + 1.6 * len(devices), 0.9 + 0.27 * len(names))
