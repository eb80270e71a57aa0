"""Searches on a table of accuracies: a training is looked up, so a search takes seconds and is repeated many times.

Shape suffixes: N networks of the table, D columns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice

import numpy as np
import pandas as pd

from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.core.progress import silent
from libranas.core.random import stream_seed
from libranas.core.stats import mean_interval
from libranas.predictors.base import Calibration, Sample
from libranas.predictors.encoder import Encoder
from libranas.predictors.gaussian_process import squared_distance
from libranas.predictors.label_free import consensus
from libranas.predictors.registry import COMBINERS
from libranas.search import guided
from libranas.search.base import Evaluated, Searcher
from libranas.search.registry import STRATEGIES
from libranas.search.strategies.guided import sizes
from libranas.spaces import Space
from libranas.spaces.base import network

#: Numbers of labels after which a search is judged.
POINTS = (10, 20, 30, 50, 75, 100)
#: Trainings of a round of guided search.
ROUND = 5
#: What a one-shot search maximises, fitted to its labels.
PREDICTOR = "blend"
#: A table that lists this share of its space or more is searched by the space's own mutations. Where it lists less,
#: they would hardly ever meet a network of the table.
LISTED = 0.01
#: There, and where the space is not known, a mutation of a row goes to one of so many nearest rows.
NEIGHBOURS = 10


@dataclass(frozen=True, eq=False)
class Pool:
    """The networks of a table.

    Attributes
    ----------
    accuracy_N : ndarray of float
        Finite; higher = better.
    sample : Sample
        What is known of them without training. The sign of a score does not matter to `guided`.
    space : Space, optional
        That of the networks.
    archs : sequence of Arch
        The networks, where there is a space; no two are the same network.
    """

    accuracy_N: np.ndarray
    sample: Sample
    space: Space | None = None
    archs: Sequence[Arch] = ()
    groups: list[np.ndarray] = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "groups", Encoder(self.sample)(self.sample))

    def __len__(self) -> int:
        return len(self.accuracy_N)

    @cached_property
    def listed(self) -> tuple[Space, dict[str, int]]:
        """A space, and name of a network to its position: what a strategy of evolution needs."""
        if self.space and len(self.archs) >= LISTED * self.space.size():
            space, archs = self.space, self.archs
        else:
            space = Rows(self.groups)
            archs = [space.arch(i) for i in range(len(self))]
        return space, {network(space, arch): i for i, arch in enumerate(archs)}

    @cached_property
    def ranking_N(self) -> np.ndarray:
        """What is said of each network without labels, for the first ones to train; higher = better."""
        return consensus(self.sample)(self.sample)

    def without_scores(self) -> "Pool":
        """Return the same networks, known by their features alone.

        Raises
        ------
        LibranasError
            If they have none.
        """
        if self.sample.feature_AF is None:
            raise LibranasError(
                "The method 'features' needs features, and the table has none.",
                "Name columns with --features, or leave the method out.",
            )
        constant = pd.Series(0.0, self.sample.params_A.index)
        return replace(self, sample=Sample(self.sample.score_AP.iloc[:, :0], constant, self.sample.feature_AF))


class Rows(Space):
    """The rows of a table as a space: a mutation goes to a near row."""

    family = "table"

    def __init__(self, groups: Sequence[np.ndarray]):
        self.x_ND = np.hstack([group / np.sqrt(group.shape[1]) for group in groups])

    def arch(self, row: int) -> Arch:
        return Arch(self.family, {"row": int(row)})

    def sample(self, rng: np.random.Generator) -> Arch:
        return self.arch(rng.integers(len(self.x_ND)))

    def mutate(self, arch: Arch, rng: np.random.Generator) -> Arch:
        row = arch["row"]
        distance_N = squared_distance(self.x_ND, self.x_ND[row : row + 1])[:, 0]
        distance_N[row] = np.inf
        count = min(NEIGHBOURS, len(distance_N) - 1)
        return self.arch(rng.choice(np.argpartition(distance_N, count - 1)[:count]) if count else row)

    def cross(self, a: Arch, b: Arch, rng: np.random.Generator) -> Arch:
        """Return the row nearest to the middle of both."""
        middle = self.x_ND[[a["row"], b["row"]]].mean(axis=0, keepdims=True)
        return self.arch(np.argmin(squared_distance(self.x_ND, middle)[:, 0]))


@dataclass(frozen=True)
class Listed:
    """A budget (:class:`libranas.spaces.Budget`) that admits the networks of a table."""

    networks: frozenset[str]

    def check(self, space: Space) -> None:
        if not self.networks:
            raise LibranasError("The table lists no network within the limits.", "Widen the limits.")

    def admits(self, space: Space, arch: Arch) -> bool:
        return network(space, arch) in self.networks


def looked_up(searcher: Searcher, value: Callable[[Arch], float], evaluations: int) -> list[Evaluated]:
    """Return the history of a search whose evaluations cost nothing; a value that is not finite counts as -inf."""
    history: list[Evaluated] = []
    while len(history) < evaluations:
        for arch in list(islice(searcher.ask(history), evaluations - len(history))):
            fitness = float(value(arch))
            history.append(Evaluated(arch, fitness if np.isfinite(fitness) else -np.inf, {}))
    return history


def incumbents(fitness: np.ndarray) -> np.ndarray:
    """Return the number of the best evaluation so far after each one, the earlier one of equals."""
    new = np.r_[True, fitness[1:] > np.maximum.accumulate(fitness)[:-1]]
    return np.maximum.accumulate(np.where(new, np.arange(len(fitness)), 0))


# -- methods: (pool, labels, seed) -> position of the network that it holds for the best, after each label --


def best_so_far(pool: Pool, order: Sequence[int]) -> np.ndarray:
    """Return the best of the labelled networks after each label, the earlier one of equals."""
    order = np.asarray(order)
    return order[incumbents(pool.accuracy_N[order])]


def search_guided(pool: Pool, labels: int, seed: int) -> np.ndarray:
    """Train what the surrogate hopes most of (:mod:`libranas.search.guided`)."""
    rng = np.random.default_rng(stream_seed(seed, "simulate", "guided"))
    first, *rest = sizes(labels, ROUND)
    known = guided.first(pool.groups, pool.ranking_N, first, rng)
    for count in rest:
        proposed = guided.propose(pool.groups, known, pool.accuracy_N[known], count, rng)
        if not proposed:  # all others are equal to labelled ones
            proposed = rng.permutation(np.setdiff1d(np.arange(len(pool)), known))[:count].tolist()
        known += proposed
    return best_so_far(pool, known)


def search_features(pool: Pool, labels: int, seed: int) -> np.ndarray:
    """Guided search that sees no score and no size."""
    return search_guided(pool.without_scores(), labels, seed)


def search_random(pool: Pool, labels: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(stream_seed(seed, "simulate", "random"))
    return best_so_far(pool, rng.permutation(len(pool))[:labels])


def search_predictor(pool: Pool, labels: int, seed: int) -> np.ndarray:
    """Label random networks, fit a combiner once, and take the network that it ranks first without training it."""
    order = np.random.default_rng(stream_seed(seed, "simulate", "random")).permutation(len(pool))
    found = np.zeros(labels, dtype=int)
    for count in {p for p in POINTS if p <= labels} | {labels}:
        at = np.sort(order[:count])
        known = Calibration(pool.sample.take(at), pd.Series(pool.accuracy_N[at]), pool.sample)
        predictor = COMBINERS[PREDICTOR].fit(known, stream_seed(seed, "simulate", "predictor"))
        found[count - 1] = int(np.argmax(predictor(pool.sample)))
    return found


def _with_strategy(name: str) -> Callable[[Pool, int, int], np.ndarray]:
    def search(pool: Pool, labels: int, seed: int) -> np.ndarray:
        space, position = pool.listed
        searcher = STRATEGIES[name].make(space, Listed(frozenset(position)), seed)
        history = looked_up(searcher, lambda arch: pool.accuracy_N[position[network(space, arch)]], labels)
        return best_so_far(pool, [position[network(space, e.arch)] for e in history])

    return search


METHODS: dict[str, Callable[[Pool, int, int], np.ndarray]] = {
    "guided": search_guided,
    "features": search_features,
    "predictor": search_predictor,
    "evolution": _with_strategy("evolution"),
    "ageing": _with_strategy("ageing"),
    "random": search_random,
}


def simulate(
    pool: Pool,
    methods: Sequence[str] | None = None,
    labels: int = 100,
    runs: int = 20,
    seed: int = 0,
    progress: Callable = silent,
) -> pd.DataFrame:
    """Repeat searches of a table, and judge them after 10, 20, 30, 50, 75, 100 and `labels` labels.

    Parameters
    ----------
    methods : names of :data:`METHODS`; None: all that the table has columns for
    labels : accuracies that each search may look at
    progress : see :mod:`libranas.core.progress`

    Returns
    -------
    DataFrame with the columns ``method, labels, runs, regret, regret_low, regret_high, rank``: mean over the runs of
    the best accuracy of the table less that of the network that the search holds for the best, in the units of the
    table, with its 95 % t interval (NaN for one run); median of the rank of that network (1: none is better)

    Raises
    ------
    LibranasError
        For an unknown method, or fewer networks than labels.
    """
    if methods is None:
        methods = [m for m in METHODS if m != "features" or pool.sample.feature_AF is not None]
    if unknown := [m for m in methods if m not in METHODS]:
        raise LibranasError(f"There is no method {unknown[0]!r}.", f"Known methods: {', '.join(METHODS)}.")
    if labels > len(pool):
        raise LibranasError(
            f"{labels} labels were asked for, and the table has {len(pool)} different networks.",
            f"Ask for at most {len(pool)} labels.",
        )
    points = sorted({p for p in POINTS if p <= labels} | {labels})
    found = {method: np.empty((runs, len(points)), dtype=int) for method in methods}
    for run in progress(range(runs), runs, "searches"):
        for method in methods:
            found[method][run] = METHODS[method](pool, labels, stream_seed(seed, run))[np.array(points) - 1]
    rank_N = len(pool) - np.searchsorted(np.sort(pool.accuracy_N), pool.accuracy_N, side="right") + 1
    regret_N = pool.accuracy_N.max() - pool.accuracy_N
    rows = []
    for method in methods:
        for i, point in enumerate(points):
            at = found[method][:, i]
            mean, low, high = mean_interval(regret_N[at]) if runs > 1 else (regret_N[at[0]], np.nan, np.nan)
            row = {"method": method, "labels": point, "runs": runs, "regret": mean}
            rows.append(row | {"regret_low": low, "regret_high": high, "rank": float(np.median(rank_N[at]))})
    return pd.DataFrame(rows)
