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
#: Accuracies nearer to 0 or 1 count as this near.
ODDS = 1e-3
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
    groups: Groups,
    known: Sequence[int],
    accuracy_K: np.ndarray,
    count: int,
    rng: np.random.Generator,
    cost_NO: np.ndarray | None = None,
) -> list[int]:
    """Choose the candidates to train next: those with the highest mean + |z| deviation, z from N(0, 1) anew for each.

    Parameters
    ----------
    known : positions of the labelled candidates, which are not proposed again
    accuracy_K : their accuracies; higher = better, NaN: the training failed
    cost_NO : objectives to be small beside the accuracy. Each proposal then has the least weighted loss of all of them,
        with random weights (ParEGO; Knowles, 2006), so that proposals spread along the front.

    Returns
    -------
    positions, at most `count`, the first ones the same for any `count`; no two are equal to the surrogate
    """
    mean_N, deviation_N = surrogate(groups, known, accuracy_K).posterior(groups)
    open_N = np.ones(len(mean_N), dtype=bool)
    open_N[list(known)] = False
    chosen: list[int] = []
    while len(chosen) < count and open_N.any():
        hope_N = mean_N + abs(rng.normal()) * deviation_N
        if cost_NO is not None:
            hope_N = -_weighted_loss(np.column_stack([-hope_N, cost_NO]), rng)
        best = int(np.argmax(np.where(open_N, hope_N, -np.inf)))
        chosen.append(best)
        distance_N = sum(gaussian_process.squared_distance(g, g[best : best + 1])[:, 0] / g.shape[1] for g in groups)
        open_N &= distance_N >= EQUAL
        open_N[best] = False
    return chosen


def _weighted_loss(loss_NO: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the worst weighted loss of each candidate, in shares of the ranges; weights are random."""
    low_O, high_O = loss_NO.min(axis=0), loss_NO.max(axis=0)
    weighted_NO = rng.dirichlet(np.ones(len(low_O))) * (loss_NO - low_O) / np.where(high_O > low_O, high_O - low_O, 1)
    return weighted_NO.max(axis=1) + 0.05 * weighted_NO.sum(axis=1)


def expected(
    groups: Groups,
    known: Sequence[int],
    accuracy_K: np.ndarray,
    long: Sequence[int] = (),
    accuracy_L: np.ndarray | None = None,
) -> np.ndarray:
    """Return the accuracy that a candidate is expected to have, by short trainings and perhaps some long ones.

    One process on the log odds of all accuracies. The kind of the training is a column, which moves the level, and
    changes what the other columns say; so a short training counts as much for the long one as the data show.

    Parameters
    ----------
    known, accuracy_K : positions and accuracies in [0, 1] after the short training; NaN: it failed
    long, accuracy_L : the same after the long training

    Returns
    -------
    ndarray (N,): the mean accuracy after the long training, or after the short one where there is no long one
    """
    kinds = [(known, accuracy_K, 0.0)] + ([(long, accuracy_L, 1.0)] if len(long) else [])

    def rows(positions: Sequence[int] | slice, kind: float) -> list[np.ndarray]:
        own = [group[positions] for group in groups]
        if len(kinds) == 1:
            return own
        mark = np.full((len(own[0]), 1), kind)
        return [*own, mark, np.hstack(own) * mark]

    blocks = zip(*(rows(list(positions), kind) for positions, _, kind in kinds), strict=True)
    odds = np.concatenate([_log_odds(accuracy) for _, accuracy, _ in kinds])
    process = gaussian_process.fit([np.vstack(block) for block in blocks], odds)
    return scipy.special.expit(process.predict(rows(slice(None), kinds[-1][2])))


def _log_odds(accuracy_K: np.ndarray) -> np.ndarray:
    """Return log odds, finite also for 0 and 1; a failed training has those of the worst."""
    worst = np.nanmin(accuracy_K) if np.isfinite(accuracy_K).any() else 0.0
    return scipy.special.logit(np.clip(np.nan_to_num(accuracy_K, nan=worst), ODDS, 1 - ODDS))
