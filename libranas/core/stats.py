"""Rank statistics and intervals: one place for ties, missing values and signs.

Scores that are not finite rank below all others and tie, so a proxy that fails on a network never recommends it.
Correlations are signed. Arrays are (A,), an entry an architecture, matched by position; Spearman's also takes stacks,
(..., A). A value that the data leave undefined (fewer than two entries, a constant argument) is NaN, not an error.
"""

from collections.abc import Callable, Sequence

import numpy as np
import scipy  # parts of it are imported when they are used: slow, and a scoring job does without

from libranas.core.errors import LibranasError


def rank_last(values: Sequence[float]) -> np.ndarray:
    """Return the values as float64 with every non-finite one replaced by the next number below the smallest.

    If nothing is finite, all tie. Works along the last axis.
    """
    x = np.array(values, dtype=np.float64)
    finite = np.isfinite(x)
    if finite.all():
        return x
    lowest = np.min(x, axis=-1, keepdims=True, where=finite, initial=np.inf)
    return np.where(finite, x, np.nextafter(np.where(np.isinf(lowest), 0, lowest), -np.inf))


def finite_mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Return the mean of the finite entries along `axis`; NaN where there is none."""
    finite = np.isfinite(values)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.where(finite, values, 0.0).sum(axis) / finite.sum(axis)


def mean_of_seeds(value_AS: np.ndarray, orientation: int) -> tuple[np.ndarray, int]:
    """Return the mean of each network's finite seeds, times the orientation (+1 or -1); and how many values it lacks.

    Where no seed is finite the mean is the infinity that they share, or else NaN.
    """
    bad_AS = ~np.isfinite(value_AS)
    none_A = bad_AS.all(axis=1)
    alike_A = np.where((value_AS == value_AS[:, :1]).all(axis=1), value_AS[:, 0], np.nan)
    return np.where(none_A, alike_A, finite_mean(value_AS, 1)) * orientation, int(bad_AS[~none_A].sum())


def ranks(values: Sequence[float]) -> np.ndarray:
    """Return average ranks from 1 (lowest) to A (highest), non-finite values last."""
    return scipy.stats.rankdata(rank_last(values), axis=-1)


def spearman(x: Sequence[float], y: Sequence[float]) -> float | np.ndarray:
    """Compute Spearman's rho, the Pearson correlation of average ranks, signed; (...,) for stacks (..., A)."""
    x, y = np.asarray(x), np.asarray(y)
    if x.shape != y.shape:
        raise ValueError(f"arguments of different shape: {x.shape} and {y.shape}")
    if x.shape[-1] < 2:
        return np.full(x.shape[:-1], np.nan)[()]
    a, b = (r - r.mean(axis=-1, keepdims=True) for r in (ranks(x), ranks(y)))
    scale = np.sqrt(np.vecdot(a, a) * np.vecdot(b, b))
    with np.errstate(invalid="ignore"):
        return np.clip(np.where(scale > 0, np.vecdot(a, b) / scale, np.nan), -1, 1)[()]


def kendall(x: Sequence[float], y: Sequence[float]) -> float:
    """Compute Kendall's tau-b (corrected for ties), signed."""
    x, y = rank_last(x), rank_last(y)
    if len(x) < 2 and len(x) == len(y):
        return float("nan")
    return float(scipy.stats.kendalltau(x, y, variant="b").statistic)


def partial_spearman(x: Sequence[float], y: Sequence[float], *given: Sequence[float]) -> float:
    """Compute the Spearman correlation of x and y with the (rank-linear) influence of all `given` removed.

    NaN where these fix the ranks of x or y completely: nothing is left to correlate.
    """
    known_AG = np.column_stack([np.ones(len(x)), *map(ranks, given)])
    rank_A2 = np.column_stack([ranks(x), ranks(y)])
    left_A2 = rank_A2 - known_AG @ np.linalg.lstsq(known_AG, rank_A2)[0]
    spread_2 = np.linalg.norm(left_A2, axis=0)
    if (spread_2 <= 1e-9 * np.linalg.norm(rank_A2, axis=0)).any():  # rounding
        return float("nan")
    return float(np.clip(left_A2[:, 0] @ left_A2[:, 1] / spread_2.prod(), -1, 1))


def _share_in_top(values: np.ndarray, k: int) -> np.ndarray:
    """Probability of each entry to be among the k highest if ties are broken at random."""
    edge = np.sort(values)[-k]
    above, tied = values > edge, values == edge
    return above + tied * (k - above.sum()) / tied.sum()


def precision_at(score: Sequence[float], truth: Sequence[float], fraction: float) -> float:
    """Share of the truly best `fraction` of architectures among the best `fraction` by score.

    The count is rounded up, at least one. Ties at the edge count by their chance of being inside, so the
    value does not depend on the order of the entries. Random scores give `fraction` on average.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be in (0, 1], got {fraction}")
    score, truth = rank_last(score), rank_last(truth)
    # the rounding keeps 0.1 * 30 from becoming 4 architectures
    k = max(1, int(np.ceil(round(fraction * len(score), 9))))
    return float(_share_in_top(score, k) @ _share_in_top(truth, k) / k)


def bootstrap_interval(
    fn: Callable, *arrays: Sequence[float], n: int = 1000, seed: int, level: float = 0.95, stacks: bool = False
) -> tuple[float, float]:
    """Percentile bootstrap interval of ``fn(*arrays)`` over architectures.

    Each of the `n` resamples draws A architectures with replacement, the same ones in every array.
    Resamples on which `fn` is undefined (NaN, e.g. all values tied) are left out; if more than half are,
    the interval is (NaN, NaN). `stacks`: `fn` takes many resamples at once, as stacks (..., A).
    """
    columns = [np.asarray(a) for a in arrays]
    size = len(columns[0])
    if any(len(c) != size for c in columns):
        raise ValueError(f"arrays of different length: {[len(c) for c in columns]}")
    rng = np.random.default_rng(seed)
    resamples = rng.integers(0, size, size=(n, size))
    parts = np.array_split(resamples, -(-resamples.size // 1_000_000)) if stacks else resamples  # a few MB at a time
    values = np.hstack([fn(*(c[i] for c in columns)) for i in parts])
    defined = values[~np.isnan(values)]
    if 2 * len(defined) < n:
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def spearman_interval(x: Sequence[float], y: Sequence[float], *, n: int = 1000, seed: int) -> tuple[float, float]:
    """Compute the 95 % bootstrap interval of :func:`spearman`."""
    return bootstrap_interval(spearman, x, y, n=n, seed=seed, stacks=True)


def _repeats(values: Sequence[float], name: str) -> np.ndarray:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) < 2:
        raise LibranasError(
            f"{name}: an interval over repeated runs needs at least 2 values, got {x.size}",
            "use at least two seeds, or report the single value without an interval",
        )
    return x


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return mean and 95 % interval (Student's t) of independent repeats; LibranasError below two values."""
    x = _repeats(values, "mean")
    half = scipy.stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x))
    return float(x.mean()), float(x.mean() - half), float(x.mean() + half)


def welch(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float, float]:
    """Compare independent repeats by Welch's t-test (unequal variances): mean(a) - mean(b), its 95 % interval, p.

    Interval and p are NaN if neither sample varies. LibranasError if either has fewer than two values.
    """
    a, b = _repeats(a, "first sample"), _repeats(b, "second sample")
    difference = float(a.mean() - b.mean())
    if np.ptp(a) == 0 and np.ptp(b) == 0:
        return difference, float("nan"), float("nan"), float("nan")
    test = scipy.stats.ttest_ind(a, b, equal_var=False)
    interval = test.confidence_interval(0.95)
    return difference, float(interval.low), float(interval.high), float(test.pvalue)
