"""Guided search: train next what a surrogate of the accuracy hopes most of (Bayesian optimisation).

The surrogate is a Gaussian process on proxies and on features of the architecture, fitted again after each round of
trainings. Candidates are rows of columns, in groups as :class:`libranas.predictors.encoder.Encoder` makes them. What
was tried, and with what result: ``benchmarks/README.md``.

Shape suffixes: N candidates, K labelled, D columns of a group.
"""

from collections.abc import Sequence

import numpy as np
import scipy  # parts of it are imported when they are used: slow, and a scoring job does without

from libranas.predictors import gaussian_process
from libranas.predictors.gaussian_process import GaussianProcess

Groups = Sequence[np.ndarray]

#: Half of the first trainings are of networks in this best share by the ranking without labels.
PROMISING = 0.07
#: A robust deviation beyond this many counts as this many.
CLIP = 3.0
#: Candidates whose distance, a column, is below this are equal to the surrogate.
EQUAL = 1e-6


def first(groups: Groups, ranking_N: np.ndarray, count: int, rng: np.random.Generator) -> list[int]:
    """Choose the first candidates to train: half promising ones, half far apart from these and from each other.

    Parameters
    ----------
    ranking_N : without labels, higher = better

    Returns
    -------
    `count` different positions, or all if there are fewer
    """
    candidates = len(ranking_N)
    count = min(count, candidates)
    promising = np.argsort(-ranking_N, kind="stable")[: max(count // 2, int(np.ceil(PROMISING * candidates)))]
    chosen = [int(i) for i in rng.choice(promising, count // 2, replace=False)]
    scale = [np.sqrt(2 * group.var(axis=0).sum()) or 1.0 for group in groups]

    def distance_N(i: int) -> np.ndarray:
        each = (gaussian_process.squared_distance(group, group[i : i + 1])[:, 0] for group in groups)
        return sum(np.sqrt(square) / s for square, s in zip(each, scale, strict=True))

    nearest_N = np.full(candidates, np.inf)
    for i in chosen:
        nearest_N = np.minimum(nearest_N, distance_N(i))
    while len(chosen) < count:
        nearest_N[chosen] = -1
        i = int(np.argmax(nearest_N)) if chosen else int(rng.integers(candidates))
        chosen.append(i)
        nearest_N = np.minimum(nearest_N, distance_N(i))
    return chosen


def goal(accuracy_K: np.ndarray) -> np.ndarray:
    """Return the targets of the surrogate: mean of the normal score of the rank and the clipped robust deviation.

    An accuracy that is not finite, of a training that diverged, ranks last.
    """
    finite = np.isfinite(accuracy_K)
    if not finite.any():
        return np.zeros(len(accuracy_K))
    worst = accuracy_K[finite].min()
    value_K = np.where(finite, accuracy_K, worst - 1)  # below all others in rank; its deviation is that of the worst
    rank_K = scipy.stats.norm.ppf((scipy.stats.rankdata(value_K) - 0.5) / len(value_K))
    value_K = np.maximum(value_K, worst)
    spread = scipy.stats.median_abs_deviation(value_K, scale="normal") or value_K.std() or 1.0
    return (rank_K + np.clip((value_K - np.median(value_K)) / spread, -CLIP, CLIP)) / 2


def surrogate(groups: Groups, known: Sequence[int], accuracy_K: np.ndarray) -> GaussianProcess:
    """Fit the surrogate to the labelled candidates; a candidate that was trained twice is there twice."""
    return gaussian_process.fit([group[list(known)] for group in groups], goal(accuracy_K))


def propose(
    groups: Groups, known: Sequence[int], accuracy_K: np.ndarray, count: int, rng: np.random.Generator
) -> list[int]:
    """Choose the candidates to train next: those with the highest mean + |z| deviation, z from N(0, 1) anew for each.

    Parameters
    ----------
    known : positions of the labelled candidates, which are not proposed again
    accuracy_K : their accuracies; higher = better, NaN: the training failed

    Returns
    -------
    positions, at most `count`, the first ones the same for any `count`; no two are equal to the surrogate
    """
    mean_N, deviation_N = surrogate(groups, known, accuracy_K).posterior(groups)
    open_N = np.ones(len(mean_N), dtype=bool)
    open_N[list(known)] = False
    chosen: list[int] = []
    while len(chosen) < count and open_N.any():
        hope_N = np.where(open_N, mean_N + abs(rng.normal()) * deviation_N, -np.inf)
        best = int(np.argmax(hope_N))
        chosen.append(best)
        distance_N = sum(gaussian_process.squared_distance(g, g[best : best + 1])[:, 0] / g.shape[1] for g in groups)
        open_N[(distance_N < EQUAL) & open_N] = False
        open_N[best] = False
    return chosen
