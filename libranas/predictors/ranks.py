"""Ranks within a reference sample, and the sum of their logs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy  # parts of it are imported when they are used: slow, and a scoring job does without

from libranas.core.errors import LibranasError
from libranas.core.stats import ranks
from libranas.predictors.base import Predictor, Sample


@dataclass(frozen=True)
class ReferenceRanks:
    """Log-rank fitness against a fixed sample: what else a search has seen does not change a value.

    ``fitness = sum over proxies k of log F_k(s_k)``, F_k in (0, 1): at a value of the reference sample
    (m architectures) F_k = average rank / (m + 1), so the sample itself is ordered as by
    :func:`libranas.predictors.libra.log_rank`; between its values F_k is linear. Outside, with d = distance beyond the
    sample's end / distance of that end from the median, F falls as F_lowest / (1 + d) and rises as
    1 - (1 - F_highest) / (1 + d). So F_k is continuous and strictly increasing.

    Attributes
    ----------
    knots : proxy to (values, F at them), both of shape (distinct finite reference values,), rising
    spread : proxy to the (lower, upper) distance by which d is measured
    failed : what a score that is not finite adds to the sum
    """

    knots: dict[str, tuple[np.ndarray, np.ndarray]]
    spread: dict[str, tuple[float, float]]
    failed: float = -np.inf

    @classmethod
    def of(cls, reference_AP: pd.DataFrame, failed: float = -np.inf) -> "ReferenceRanks":
        """Take the ranks of a reference sample (higher is better), one column for each proxy to be used."""
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
        return cls(knots, spread, failed)

    def __call__(self, sample: Sample) -> np.ndarray:
        """Return the fitness, shape (A,), higher is better; a proxy that is missing raises LibranasError."""
        scores = sample.score_AP
        if missing := [name for name in self.knots if name not in scores]:
            raise LibranasError(
                f"the search fitness needs the proxies {list(self.knots)} but the candidate has no {missing}",
                "score the missing proxies or build the fitness without them",
            )
        return sum(self._log_fraction(name, scores[name].to_numpy(dtype=np.float64)) for name in self.knots)

    def _log_fraction(self, name: str, s: np.ndarray) -> np.ndarray:
        values, fraction = self.knots[name]
        lower, upper = self.spread[name]
        with np.errstate(over="ignore"):
            below = np.maximum(values[0] - s, 0) / lower
            above = np.maximum(s - values[-1], 0) / upper
            inside = np.log(np.interp(s, values, fraction)) - np.log1p(below)
            out = np.where(s < values[-1], inside, np.log1p((fraction[-1] - 1) / (1 + above)))
        return np.where(np.isfinite(s), out, self.failed)


def log_rank_within(reference: Sample, proxies: Sequence[str]) -> Predictor:
    """Rank by the sum of the logs of the rank fractions of some proxies within a reference sample (AZ-NAS)."""
    # a proxy that fails on an architecture puts it last, and does not hide what the others say of it
    last = float(np.log(0.5 / (len(reference) + 1)))
    return Predictor(tuple(proxies), ReferenceRanks.of(reference.score_AP[list(proxies)], failed=last))


class Fractions:
    """Share of the reference values below each value, ties half: ranks that do not depend on the other candidates."""

    def __init__(self, reference: Sequence[float]):
        finite = np.where(np.isfinite(x := np.asarray(reference, dtype=np.float64)), x, -np.inf)
        self.sorted = np.sort(finite)

    def __call__(self, values: Sequence[float]) -> np.ndarray:
        x = np.asarray(values, dtype=np.float64)
        x = np.where(np.isfinite(x), x, -np.inf)
        below = np.searchsorted(self.sorted, x, side="left") + np.searchsorted(self.sorted, x, side="right")
        return below / (2 * len(self.sorted))

    def normal(self, values: Sequence[float]) -> np.ndarray:
        """Normal scores of the fractions; beyond the reference as its ends."""
        edge = 0.5 / len(self.sorted)
        return scipy.special.ndtri(np.clip(self(values), edge, 1 - edge))
