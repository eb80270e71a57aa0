"""Measure how well two sources of accuracies agree, and two seeds of one."""

from itertools import combinations

import numpy as np
import pandas as pd

from libranas.core.random import stream_seed
from libranas.core.stats import bootstrap_interval, kendall, spearman, spearman_interval


def agreement(one: pd.DataFrame, other: pd.DataFrame, params: pd.Series, seed: int) -> dict:
    """Compare two sources of accuracies (columns ``id``, ``seed``, ``accuracy``) on the same architectures.

    Returns
    -------
    dict: Spearman with 95 % bootstrap interval, Kendall, n, and each source's Spearman with #params; where the
    first has several seeds, also ``between_seeds``, see :func:`between_seeds`, and ``noise``, see
    :func:`noise_ceiling`.
    """
    a, b = (table.groupby("id")["accuracy"].mean() for table in (one, other))
    ids = a.index.intersection(b.index)
    a, b, size = a[ids], b[ids], params[ids]
    low, high = spearman_interval(a, b, seed=stream_seed(seed, "agreement"))
    repeated = one["id"].duplicated().any()
    return {
        "n": len(ids),
        "spearman": spearman(a, b),
        "low": low,
        "high": high,
        "kendall": kendall(a, b),
        "first_with_params": spearman(a, size),
        "other_with_params": spearman(b, size),
        "between_seeds": between_seeds(one, seed) if repeated else None,
        "noise": noise_ceiling(one, seed) if repeated else None,
    }


def between_seeds(table: pd.DataFrame, seed: int) -> dict:
    """Compare the ranks of two trainings of the same architectures with other seeds.

    Parameters
    ----------
    table : ``id``, ``seed``, ``accuracy``; some architectures with several seeds

    Returns
    -------
    dict: ``spearman``, the mean over the pairs of seeds that three architectures or more share, each weighted with
    their number, with 95 % bootstrap interval ``low``, ``high`` over architectures (NaN: none do); ``n`` architectures
    with several seeds, ``pairs`` of seeds
    """
    by_seed = table.pivot(index="id", columns="seed", values="accuracy").dropna(thresh=2)
    accuracy_AR = by_seed.to_numpy()
    pairs = [list(pair) for pair in combinations(range(accuracy_AR.shape[1]), 2)]

    def mean(accuracy_AR: np.ndarray) -> float:
        both = [accuracy_AR[:, pair][~np.isnan(accuracy_AR[:, pair]).any(1)] for pair in pairs]
        rho = np.array([spearman(*values_A2.T) if len(values_A2) > 2 else np.nan for values_A2 in both])
        known = ~np.isnan(rho)
        count = np.array([len(values_A2) for values_A2 in both])
        return float(np.average(rho[known], weights=count[known])) if known.any() else float("nan")

    low, high = bootstrap_interval(mean, accuracy_AR, seed=stream_seed(seed, "between seeds"))
    return {"spearman": mean(accuracy_AR), "low": low, "high": high, "n": len(by_seed), "pairs": len(pairs)}


def noise_ceiling(table: pd.DataFrame, seed: int) -> dict:
    """Bound how well any predictor could rank architectures by their mean accuracies, given the noise of seeds.

    The accuracy of a training is taken as that of the architecture plus independent normal noise of one size. With
    reliability r = 1 - mean noise variance of the means / their variance, a predictor of the architectures' own
    accuracies has the correlation sqrt(r) with the means (Spearman 1904), and the rank correlation
    6/pi asin(sqrt(r) / 2). What the choice of validation images adds to all trainings of an architecture alike is not
    seen, so that the true ceiling is rather lower.

    Parameters
    ----------
    table : ``id``, ``seed``, ``accuracy``; some architectures with several seeds

    Returns
    -------
    dict: ``noise_std`` (of one training, pooled within architectures), ``network_std`` (of the architectures' own
    accuracies), ``ceiling`` (Spearman) with 95 % bootstrap interval ``low``, ``high`` over architectures,
    ``architectures``, ``repeated`` (those with several seeds) and ``trainings``. Accuracies in the unit of the table.
    """
    groups = table.groupby("id")["accuracy"]
    means, counts = groups.mean().to_numpy(), groups.size().to_numpy()
    squares = groups.var(ddof=0).to_numpy() * counts

    def ceiling(mean_A, squares_A, count_A) -> float:
        if (count_A == 1).all() or np.ptp(mean_A) == 0:
            return float("nan")
        noise = squares_A.sum() / (count_A - 1).sum() * (1 / count_A).mean()
        reliability = max(0.0, 1 - noise / mean_A.var(ddof=1))
        return float(6 / np.pi * np.arcsin(np.sqrt(reliability) / 2))

    low, high = bootstrap_interval(ceiling, means, squares, counts, seed=stream_seed(seed, "noise"))
    noise = squares.sum() / (counts - 1).sum()
    return {
        "noise_std": float(np.sqrt(noise)),
        "network_std": float(np.sqrt(max(0.0, means.var(ddof=1) - noise * (1 / counts).mean()))),
        "ceiling": ceiling(means, squares, counts),
        "low": low,
        "high": high,
        "architectures": len(means),
        "repeated": int((counts > 1).sum()),
        "trainings": len(table),
    }
