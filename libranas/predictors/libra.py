"""LIBRA: three proxies that rank architectures together (L-SWAG paper, arXiv 2505.07300, Algorithm 1).

The mode `literal` is the published algorithm. `corrected` has an unbiased information gain and takes the proxy with the
largest, passes over duplicates, and takes z3 from the window (docs/decisions.md). Suffixes: A architectures, P proxies.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from libranas.core.errors import LibranasError
from libranas.core.random import stream_seed
from libranas.core.stats import rank_last, ranks, spearman
from libranas.predictors.base import Calibration, Combiner, Predictor, check_table
from libranas.predictors.information_gain import (
    corrected_bins,
    corrected_information_gain,
    equal_width,
    information_gain,
    naslib_bins,
    quantile,
)
from libranas.predictors.label_free import one_proxy
from libranas.predictors.ranks import log_rank_within

#: Fewest architectures from which proxies may be chosen.
MIN_ARCHITECTURES = 10
#: Shuffled copies of a proxy from which the corrected estimator learns the gain by chance.
PERMUTATIONS = 50


@dataclass(frozen=True)
class Choice:
    """The three proxies that LIBRA chose, with everything the choice was made from."""

    mode: str  # "literal" or "corrected"
    n: int  # labelled architectures used
    z1: str
    z2: str
    z3: str
    rho: dict[str, float]  # proxy to signed Spearman with accuracy
    window: tuple[str, ...]  # proxies with rho within the window below z1's, the best first, without z1
    window_fallback: bool  # the window held no candidate for z2, the next best proxy was taken
    estimator: str  # of the information gain, in words
    information_gain: dict[str, float]  # every proxy but z1 to its gain given z1, bits
    bias: dict[str, float]  # proxy to Spearman with #params
    accuracy_bias: float  # Spearman of accuracy with #params
    reasons: tuple[str, ...]  # sentences for the reader, z1, z2 and z3 first

    @property
    def proxies(self) -> list[str]:
        """The three in the order of their choice."""
        return [self.z1, self.z2, self.z3]


@dataclass(frozen=True)
class _Candidates:
    """Proxies that vary, on n labelled architectures, with what the steps of the algorithm ask of them."""

    score_A: dict[str, np.ndarray]
    rho: dict[str, float]
    bias: dict[str, float]
    duplicate: float | None  # the guard's bound; None: no guard

    def least(self, pool: Iterable[str], key: Callable[[str], float]) -> str:
        """Return the proxy with the least key; ties go to the higher rho, then to the first name."""
        # rounded, so that a tie is not decided by the last bit of a sum
        return min(pool, key=lambda name: (round(key(name), 12), round(-self.rho[name], 12), name))

    def new(self, pool: Iterable[str], *chosen: str) -> list[str]:
        """Leave out what the guard bars: proxies that order like a chosen one, and #params from the third place."""
        if self.duplicate is None:
            return list(pool)
        barred = {p for p in pool for c in chosen if abs(spearman(self.score_A[p], self.score_A[c])) >= self.duplicate}
        if len(chosen) == 2:
            barred |= {p for p in pool if abs(self.bias[p]) > 1 - 1e-12}
        return [p for p in pool if p not in barred]


def choose(
    score_AP: pd.DataFrame,
    accuracy_A: pd.Series,
    params_A: pd.Series,
    mode: str = "corrected",
    *,
    window: float = 0.1,
    duplicate: float = 0.98,
    ig_select: str | None = None,
    seed: int = 0,
) -> Choice:
    """LIBRA, Algorithm 1: choose three proxies from scores and accuracies of calibration architectures.

    Parameters
    ----------
    score_AP : scores, higher is better; at least 10 architectures (rows) and 3 proxies that vary
    accuracy_A, params_A : Series over the same ids
    mode : "literal" (as published) or "corrected"; literal takes z3 from all that remain, corrected from the window
    window : z2 (and z3) come from proxies with rho in (rho of z1 - window, rho of z1]
    duplicate : corrected mode passes over proxies with |Spearman| >= this with one already chosen
    ig_select : "min" or "max" information gain for z2; default "min" if literal, "max" if corrected
    seed : of the corrected estimator

    Raises
    ------
    LibranasError
        For unusable input.

    Notes
    -----
    Ties go to the higher rho, then to the first name. Where the window holds nothing that can be used, z2 or z3 is
    the next best proxy by rho, and the reasons say so. (For z3, the nearest bias among all others is worse: 0.62
    against 0.65 mean Spearman on 13 published tables with 100 labels.)
    """
    literal = mode == "literal"
    ig_select = ig_select or ("min" if literal else "max")
    for option, value, known in (("mode", mode, ("literal", "corrected")), ("ig_select", ig_select, ("min", "max"))):
        if value not in known:
            raise LibranasError(f"LIBRA: {option} {value!r} is unknown", f"known: {' '.join(known)}")
    score_A, accuracy, params, constant = _usable(score_AP, accuracy_A, params_A)
    n, accuracy_bias = len(accuracy), spearman(accuracy, params)
    rho = {name: spearman(x, accuracy) for name, x in score_A.items()}
    bias = {name: spearman(x, params) for name, x in score_A.items()}
    proxies = _Candidates(score_A, rho, bias, None if literal else duplicate)

    z1 = proxies.least(score_A, lambda name: -rho[name])
    reasons = [f"{z1} is first: the highest Spearman with accuracy, {rho[z1]:.3f} on {n} architectures."]
    others = sorted((name for name in score_A if name != z1), key=lambda name: (-rho[name], name))
    in_window = [name for name in others if rho[name] > rho[z1] - window]

    estimator, gain = _gains(score_A, accuracy, z1, literal, seed)
    candidates = proxies.new(in_window, z1)
    if candidates:
        z2 = proxies.least(candidates, lambda name: gain[name] if ig_select == "min" else -gain[name])
        added = f"given {z1} it adds the {'least' if ig_select == 'min' else 'most'} information about accuracy"
        reasons.append(f"{z2} is second: {added}, {gain[z2]:.3f} bits ({estimator}){_among(candidates)}.")
    else:
        z2 = (proxies.new(others, z1) or others)[0]
        reasons.append(
            f"{z2} is second: none within {window:g} of {z1} can be used, and it is the next best, {rho[z2]:.3f}."
        )

    left = [name for name in others if name != z2]
    if pool := proxies.new(left if literal else [p for p in in_window if p != z2], z1, z2):
        z3 = proxies.least(pool, lambda name: abs(accuracy_bias - bias[name]))
        reasons.append(
            f"{z3} is third: its correlation with #params, {bias[z3]:.3f}, is the nearest to that of accuracy, "
            f"{accuracy_bias:.3f}{_among(pool)}."
        )
    else:
        z3 = (proxies.new(left, z1, z2) or left)[0]
        reasons.append(
            f"{z3} is third: none that can be used was left within the window for the third place, and it is the "
            f"next best, {rho[z3]:.3f}."
        )
    if passed := [name for name in in_window if name not in {z2, z3, *candidates}]:
        reasons.append(f"Passed over, as they order the architectures like {z1}: {', '.join(passed)}.")
    if constant:
        reasons.append(f"Left out, as all their values are equal: {', '.join(constant)}.")
    made_from = rho, tuple(in_window), not candidates, estimator, gain, bias, accuracy_bias
    return Choice(mode, n, z1, z2, z3, *made_from, tuple(reasons))


def _among(names: Sequence[str]) -> str:
    return f", among {', '.join(names)}" if len(names) > 1 else "; no other was left"


def _usable(
    score_AP: pd.DataFrame, accuracy_A: pd.Series, params_A: pd.Series
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, list[str]]:
    """Return scores of the proxies that vary, accuracies, sizes, and the names of the proxies that do not vary."""
    score_AP, accuracy_A, params_A = check_table(score_AP, accuracy_A, params_A)
    accuracy, params = accuracy_A.to_numpy(dtype=np.float64), params_A.to_numpy(dtype=np.float64)
    if (n := len(accuracy)) < MIN_ARCHITECTURES:
        raise LibranasError(
            f"LIBRA chooses from {MIN_ARCHITECTURES} or more architectures with accuracies, got {n}",
            "label more architectures",
        )
    for what, x in (("accuracies", accuracy), ("numbers of parameters", params)):
        if np.ptp(x) == 0:
            raise LibranasError(f"LIBRA: all {n} {what} are equal", "sample more varied architectures")
    column = {name: rank_last(score_AP[name]) for name in score_AP.columns}
    constant = [name for name, x in column.items() if np.ptp(x) == 0]
    if len(column) - len(constant) < 3:
        raise LibranasError(
            f"LIBRA chooses three proxies, got {len(column)} of which {len(constant)} never vary",
            "score more proxies",
        )
    return {p: x for p, x in column.items() if p not in constant}, accuracy, params, constant


def _gains(
    score_A: dict[str, np.ndarray], accuracy: np.ndarray, z1: str, literal: bool, seed: int
) -> tuple[str, dict[str, float]]:
    """The estimator in words, and the information gain given z1 (bits) of every other proxy."""
    bins = naslib_bins(len(accuracy)) if literal else corrected_bins(len(accuracy))
    binned = equal_width if literal else quantile
    y, code = binned(accuracy, bins), {name: binned(x, bins) for name, x in score_A.items()}
    first = code.pop(z1)
    if literal:
        gain = {name: information_gain(y, first, z) for name, z in code.items()}
        return f"plug-in, {bins} equal-width bins", gain
    # a stream for each proxy: its gain does not depend on which others there are
    stream = {name: np.random.default_rng(stream_seed(seed, "libra", "shuffle", name)) for name in code}
    gain = {p: corrected_information_gain(y, first, z, PERMUTATIONS, stream[p]) for p, z in code.items()}
    return f"{bins} quantile bins, less the mean of {PERMUTATIONS} shuffles", gain


def log_rank(score_AP: pd.DataFrame) -> pd.Series:
    """Sum over proxies of log(rank / A) within this table (AZ-NAS); average ranks, 0 is the best possible.

    A value depends on the other rows: for a search use :func:`libranas.predictors.ranks.log_rank_within`.
    """
    return np.log(score_AP.apply(ranks) / len(score_AP)).sum(axis=1)


def _fit_z1(known: Calibration, seed: int) -> Predictor:
    rho = {name: spearman(known.labelled.score_AP[name], known.accuracy_C) for name in known.labelled.score_AP.columns}
    # a constant proxy has no rho and can only be best if there is nothing else
    return one_proxy(max(sorted(rho), key=lambda name: -np.inf if np.isnan(rho[name]) else rho[name]))


def _libra(mode: str) -> Callable[[Calibration, int], Predictor]:
    def fit(known: Calibration, seed: int) -> Predictor:
        choice = choose(known.labelled.score_AP, known.accuracy_C, known.labelled.params_A, mode, seed=seed)
        return log_rank_within(known.usual, choice.proxies)

    return fit


Z1 = Combiner("z1", "best single proxy (z1)", _fit_z1, shown=True)
LITERAL = Combiner("libra_literal", "LIBRA, literal", _libra("literal"), shown=True)
CORRECTED = Combiner("libra_corrected", "LIBRA, corrected", _libra("corrected"), shown=True)
