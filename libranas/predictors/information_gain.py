"""Information gain of a proxy about accuracy, given another proxy: the published estimator and a corrected one."""

from collections.abc import Sequence

import numpy as np

from libranas.core.stats import rank_last


def equal_width(values: Sequence[float], bins: int) -> np.ndarray:
    """Codes 0..bins-1 of `bins` intervals of equal width over [min, max], the last one closed."""
    x = rank_last(values)
    edges = np.linspace(x.min(), x.max(), bins + 1)
    return np.searchsorted(edges[1:-1], x, side="right")


def naslib_bins(n: int) -> int:
    """Number of bins in NAS-Bench-Suite-Zero: round(1 + 3.322 ln n) (Sturges' rule with ln for log10)."""
    return round(1 + 3.322 * np.log(n))


def quantile(values: Sequence[float], bins: int) -> np.ndarray:
    """Codes of bins of about equal counts: how many quantiles k/bins, 0 < k < bins (linear), are <= value."""
    x = rank_last(values)
    return np.searchsorted(np.quantile(x, np.arange(1, bins) / bins), x, side="right")


def corrected_bins(n: int) -> int:
    """Bins of the corrected estimator: max(3, floor((n/10)^(1/3))), in integers to be exact at cubes."""
    bins = 3
    while 10 * (bins + 1) ** 3 <= n:
        bins += 1
    return bins


def entropy(*codes: np.ndarray) -> float:
    """Plug-in joint entropy, in bits, of variables given as non-negative integer codes of shape (A,)."""
    cell = np.zeros(len(codes[0]), dtype=np.int64)
    for c in codes:
        cell = cell * (int(c.max()) + 1) + c
    p = np.unique(cell, return_counts=True)[1] / len(cell)
    return float(-(p * np.log2(p)).sum())


def information_gain(y: np.ndarray, z1: np.ndarray, z: np.ndarray) -> float:
    """H(y | z1) - H(y | z1, z) in bits, plug-in, from codes; never negative, biased upwards."""
    return entropy(y, z1) - entropy(z1) - entropy(y, z1, z) + entropy(z1, z)


def corrected_information_gain(
    y: np.ndarray, z1: np.ndarray, z: np.ndarray, permutations: int, rng: np.random.Generator
) -> float:
    """Information gain (bits) less the mean gain of `permutations` copies of z shuffled within bins of z1.

    About zero, and on average exactly so, if z says nothing about y beyond z1; it can be negative.
    """
    order = np.argsort(z1, kind="stable")
    y, z1, z = y[order], z1[order], z[order]
    # everything is sorted by z1, so sorting by (z1, random) moves entries inside its bins only
    shuffled = (z[np.lexsort((rng.random(len(z)), z1))] for _ in range(permutations))
    # information_gain of each copy; only one of its terms is changed by moving z inside the bins of z1
    base, same = entropy(y, z1) - entropy(z1), entropy(z1, z)
    chance = [base - entropy(y, z1, copy) + same for copy in shuffled]
    return base - entropy(y, z1, z) + same - float(np.mean(chance))
