"""LIBRA: three proxies that rank architectures together (L-SWAG paper, arXiv 2505.07300, Algorithm 1).

Shape suffixes: A architectures, P proxies. ``score_AP`` is a DataFrame (rows: architecture ids, columns:
proxies) in which higher is better; ``accuracy_A`` and ``params_A`` are Series over the same ids.

LIBRA reads accuracies to choose, so it is not label-free: choose on calibration architectures, judge on
others (:func:`libranas.predictors.evaluation.evaluate` does). `literal` is the published algorithm with the estimator
of NAS-Bench-Suite-Zero, which the paper cites; `corrected` differs in four points:

1. The published information gain (plug-in, ``1 + 3.322 ln n`` equal-width bins) is mostly finite-sample
   bias: the cells outnumber the architectures. Here: few quantile bins (heavy tails no longer look like
   low gain) and the mean gain of shuffled copies subtracted. Copies are shuffled inside the bins of z1,
   which keeps z's relation to z1 and breaks only what is to be measured, so the expected gain of a
   proxy that says nothing about accuracy beyond z1 (noise or a copy of z1) is zero.
2. z2 is the proxy that adds *most* information given z1, as in NAS-Bench-Suite-Zero. Algorithm 1 takes the
   least; with an unbiased estimate that is the proxy that adds nothing.
3. A proxy that orders the architectures like one already chosen is passed over (the duplicate guard).
4. z3 comes from the window, and never is #params itself, whose bias is 1 by definition.

The combination of the three into one ranking is not in the paper: the sum of log rank fractions
(AZ-NAS) is used, in a search against a fixed reference sample (:class:`ReferenceRanks`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from libranas.core.errors import LibranasError
from libranas.core.random import stream_seed
from libranas.core.stats import rank_last, ranks, spearman

#: Fewest architectures from which proxies may be chosen.
MIN_ARCHITECTURES = 10


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
        return [self.z1, self.z2, self.z3]


def check_table(
    score_AP: pd.DataFrame, accuracy_A: pd.Series, params_A: pd.Series
) -> tuple[pd.DataFrame, pd.Series, pd.Series]:
    """The three with architectures in the order of their ids and proxies in the order of their names.

    The fixed order makes every result independent of the order of rows and columns given. Raises
    LibranasError for repeated or differing ids and for accuracies or sizes that are not finite (a missing
    accuracy is not a bad one; scores may be non-finite, they rank last).
    """
    for what, names in (("architecture", score_AP.index), ("proxy", score_AP.columns)):
        if names.has_duplicates:
            example = names[names.duplicated()][0]
            raise LibranasError(f"scores: {what} {example!r} occurs more than once", "keep one entry of each")
    for what, x in (("accuracies", accuracy_A), ("numbers of parameters", params_A)):
        odd = score_AP.index.symmetric_difference(x.index).union(x.index[x.index.duplicated()])
        if len(odd):
            raise LibranasError(
                f"{len(score_AP)} scored architectures and {len(x)} {what} do not match, e.g. {odd[0]!r}",
                "give scores, accuracies and sizes for exactly the same architectures, one entry each",
            )
        bad = x.index[~np.isfinite(x.to_numpy(dtype=np.float64))]
        if len(bad):
            raise LibranasError(
                f"{len(bad)} of the {what} are not finite, e.g. that of {bad[0]!r}",
                "leave those architectures out, or give a failed training the accuracy that it reached",
            )
    score_AP = score_AP.sort_index(axis=0).sort_index(axis=1)
    return score_AP, accuracy_A.loc[score_AP.index], params_A.loc[score_AP.index]


def choose(
    score_AP: pd.DataFrame,
    accuracy_A: pd.Series,
    params_A: pd.Series,
    mode: str = "corrected",
    *,
    window: float = 0.1,
    duplicate: float = 0.98,
    ig_select: str | None = None,
    z3_pool: str | None = None,
    permutations: int = 50,
    seed: int = 0,
) -> Choice:
    """LIBRA, Algorithm 1: choose three proxies from scores and accuracies of calibration architectures.

    Parameters
    ----------
    score_AP, accuracy_A, params_A : see the module; at least 10 architectures, 3 proxies that vary
    mode : "literal" (as published) or "corrected"; see the module for the differences
    window : z2 (and z3) come from proxies with rho in (rho of z1 - window, rho of z1]
    duplicate : corrected mode passes over proxies with |Spearman| >= this with one already chosen
    ig_select : "min" or "max" information gain for z2; default "min" if literal, "max" if corrected
    z3_pool : "others" (all that remain) or "window"; default "others" if literal, "window" if corrected
    permutations, seed : of the corrected estimator

    Ties go to the higher rho, then to the first name. Where the window holds nothing that can be used, z2 or z3 is
    the next best proxy by rho, and the reasons say so. (For z3, the nearest bias among all others is worse: 0.62
    against 0.65 mean Spearman on 13 published tables with 100 labels.) Raises LibranasError for unusable input.
    """
    literal = mode == "literal"
    ig_select = ig_select or ("min" if literal else "max")
    z3_pool = z3_pool or ("others" if literal else "window")
    for option, value, known in (
        ("mode", mode, "literal corrected"),
        ("ig_select", ig_select, "min max"),
        ("z3_pool", z3_pool, "others window"),
    ):
        if value not in known.split():
            raise LibranasError(f"LIBRA: {option} {value!r} is unknown", f"known: {known}")
    column, accuracy, params, constant = _usable(score_AP, accuracy_A, params_A)
    n = len(accuracy)

    rho = {name: spearman(x, accuracy) for name, x in column.items()}
    bias = {name: spearman(x, params) for name, x in column.items()}
    accuracy_bias = spearman(accuracy, params)

    def least(pool: Iterable[str], key: Callable[[str], float]) -> str:
        # rounded, so that a tie is not decided by the last bit of a sum
        return min(pool, key=lambda name: (round(key(name), 12), round(-rho[name], 12), name))

    z1 = least(column, lambda name: -rho[name])
    others = sorted((name for name in column if name != z1), key=lambda name: (-rho[name], name))
    in_window = [name for name in others if rho[name] > rho[z1] - window]
    estimator, gain = _gains(column, accuracy, z1, literal, permutations, seed)

    def new(pool: Iterable[str], *chosen: str) -> list[str]:
        """The pool without what corrected mode bars: orders like a chosen proxy's, and (for z3) #params."""
        barred = set()
        if not literal:
            barred = {p for p in pool for c in chosen if abs(spearman(column[p], column[c])) >= duplicate}
            if len(chosen) == 2:
                barred |= {p for p in pool if abs(bias[p]) > 1 - 1e-12}
        return [p for p in pool if p not in barred]

    candidates = new(in_window, z1)
    fallback = not candidates
    if fallback:
        candidates = (new(others, z1) or others)[:1]
    z2 = least(candidates, lambda name: gain[name] if ig_select == "min" else -gain[name])
    left = [name for name in others if name != z2]
    preferred = new(left if z3_pool == "others" else [p for p in in_window if p != z2], z1, z2)
    pool = preferred or (new(left, z1, z2) or left)[:1]
    z3 = least(pool, lambda name: abs(accuracy_bias - bias[name]))

    added = f"given {z1} it adds the {'least' if ig_select == 'min' else 'most'} information about accuracy"
    reasons = [
        f"{z1} is first: the highest Spearman with accuracy, {rho[z1]:.3f} on {n} architectures.",
        f"{z2} is second: none within {window:g} of {z1} can be used, and it is the next best, {rho[z2]:.3f}."
        if fallback
        else f"{z2} is second: {added}, {gain[z2]:.3f} bits ({estimator}), among {', '.join(candidates)}.",
        f"{z3} is third: its correlation with #params, {bias[z3]:.3f}, is the nearest to that of accuracy, "
        f"{accuracy_bias:.3f}, among {', '.join(pool)}."
        if preferred
        else f"{z3} is third: none that can be used was left within the window for the third place, and it is the "
        f"next best, {rho[z3]:.3f}.",
    ]
    if passed := [name for name in in_window if name not in {z2, z3, *new(in_window, z1)}]:
        reasons.append(f"Passed over, as they order the architectures like {z1}: {', '.join(passed)}.")
    if constant:
        reasons.append(f"Left out, as all their values are equal: {', '.join(constant)}.")
    made_from = rho, tuple(in_window), fallback, estimator, gain, bias, accuracy_bias
    return Choice(mode, n, z1, z2, z3, *made_from, tuple(reasons))


def _usable(
    score_AP: pd.DataFrame, accuracy_A: pd.Series, params_A: pd.Series
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, list[str]]:
    """Scores of the proxies that vary, accuracies, sizes, and the names of the proxies that do not vary."""
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
    column: dict[str, np.ndarray], accuracy: np.ndarray, z1: str, literal: bool, permutations: int, seed: int
) -> tuple[str, dict[str, float]]:
    """The estimator in words, and the information gain given z1 (bits) of every other proxy."""
    bins = naslib_bins(len(accuracy)) if literal else corrected_bins(len(accuracy))
    binned = equal_width if literal else quantile
    y, code = binned(accuracy, bins), {name: binned(x, bins) for name, x in column.items()}
    first = code.pop(z1)
    if literal:
        gain = {name: information_gain(y, first, z) for name, z in code.items()}
        return f"plug-in, {bins} equal-width bins", gain
    # a stream for each proxy: its gain does not depend on which others there are
    stream = {name: np.random.default_rng(stream_seed(seed, "libra", "shuffle", name)) for name in code}
    gain = {p: corrected_information_gain(y, first, z, permutations, stream[p]) for p, z in code.items()}
    return f"{bins} quantile bins, less the mean of {permutations} shuffles", gain


def log_rank(score_AP: pd.DataFrame) -> pd.Series:
    """Sum over proxies of log(rank / A) within this table (AZ-NAS); average ranks, 0 is the best possible.

    A value depends on the other rows: for a search use :class:`ReferenceRanks`.
    """
    return np.log(score_AP.apply(ranks) / len(score_AP)).sum(axis=1)


@dataclass(frozen=True)
class ReferenceRanks:
    """Log-rank fitness against a fixed sample: what else a search has seen does not change a value.

    ``fitness = sum over proxies k of log F_k(s_k)``, F_k in (0, 1): at a value of the reference sample
    (m architectures) F_k = average rank / (m + 1), so the sample itself is ordered as by :func:`log_rank`;
    between its values F_k is linear. Outside, with d = distance beyond the sample's end / distance of that
    end from the median, F falls as F_lowest / (1 + d) and rises as 1 - (1 - F_highest) / (1 + d). So F_k is
    continuous and strictly increasing: a candidate better than all the sample is still told from one that is
    better yet, while no single proxy can outweigh the others from there on. Non-finite scores give -inf.

    Attributes
    ----------
    knots : proxy to (values, F at them), both of shape (distinct finite reference values,), rising
    spread : proxy to the (lower, upper) distance by which d is measured
    size : m
    """

    knots: dict[str, tuple[np.ndarray, np.ndarray]]
    spread: dict[str, tuple[float, float]]
    size: int

    @classmethod
    def from_scores(cls, reference_AP: pd.DataFrame) -> "ReferenceRanks":
        """From scores (higher is better) of a reference sample, one column for each proxy to be used."""
        knots, spread = {}, {}
        for name in reference_AP.columns:
            s = reference_AP[name].to_numpy(dtype=np.float64)
            finite = np.isfinite(s)
            if not finite.any():
                raise LibranasError(
                    f"proxy {name!r} has no finite value on the {len(s)} reference architectures",
                    "leave this proxy out of the search fitness",
                )
            values, at = np.unique(s[finite], return_index=True)
            knots[name] = values, ranks(s)[finite][at] / (len(s) + 1)
            low, middle, high = values[0], np.median(s[finite]), values[-1]
            whole = (high - low) or max(abs(high), 1.0)  # a constant proxy has only its own size
            spread[name] = float(middle - low) or float(whole), float(high - middle) or float(whole)
        return cls(knots, spread, len(reference_AP))

    def _log_fraction(self, name: str, s: np.ndarray, failed: float) -> np.ndarray:
        values, fraction = self.knots[name]
        lower, upper = self.spread[name]
        with np.errstate(over="ignore"):
            below = np.maximum(values[0] - s, 0) / lower
            above = np.maximum(s - values[-1], 0) / upper
            inside = np.log(np.interp(s, values, fraction)) - np.log1p(below)
            out = np.where(s < values[-1], inside, np.log1p((fraction[-1] - 1) / (1 + above)))
        return np.where(np.isfinite(s), out, failed)

    def fitness(self, scores: Mapping[str, float] | pd.DataFrame, failed: float = -np.inf) -> float | np.ndarray:
        """Fitness, higher is better: a float for one candidate (proxy to score), shape (A,) for a table.

        Proxies without a reference are ignored; one that is missing raises LibranasError. `failed` is what a
        score that is not finite adds to the sum.
        """
        if missing := [name for name in self.knots if name not in scores]:
            raise LibranasError(
                f"the search fitness needs the proxies {list(self.knots)} but the candidate has no {missing}",
                "score the missing proxies or build the fitness without them",
            )
        total = sum(self._log_fraction(p, np.asarray(scores[p], dtype=np.float64), failed) for p in self.knots)
        return total if isinstance(scores, pd.DataFrame) else float(total)
