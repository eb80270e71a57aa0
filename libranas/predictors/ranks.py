"""Ranks within a reference sample."""

from collections.abc import Callable, Sequence

import numpy as np
import scipy  # parts of it are imported when they are used: slow, and a scoring job does without

from libranas.predictors.base import Calibration, Predictor, _usable
from libranas.predictors.libra import ReferenceRanks


def _log_rank(proxies: Sequence[str] | None) -> Callable[[Calibration, int], Predictor]:
    """Sum of the logs of the rank fractions of some proxies (AZ-NAS), of all that vary if None."""

    def fit(known: Calibration, seed: int) -> Predictor:
        score_RP = known.usual.score_AP
        # a proxy that fails on an architecture puts it last, and does not hide what the others say of it
        last = np.log(0.5 / (len(score_RP) + 1))
        names = tuple(proxies or _usable(score_RP))
        ranks = ReferenceRanks.from_scores(score_RP[list(names)])
        return Predictor(names, lambda sample: ranks.fitness(sample.score_AP, failed=last))

    return fit


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
