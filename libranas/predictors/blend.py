"""The blend: the mean of several learners and, with few labels, of the consensus."""

from collections.abc import Callable

import numpy as np

from libranas.predictors.base import Calibration, Predictor, Sample
from libranas.predictors.encoder import Encoder
from libranas.predictors.label_free import _consensus
from libranas.predictors.learners import Fitted, _forest, _gp, _gp_weighted, _lightgbm, _target

BLENDED = (_forest, _lightgbm, _gp, _gp_weighted)
#: The blend gives the consensus without labels the weight of this many labels.
CONSENSUS_LABELS = 3


def _blend(scores: bool, features: bool) -> Callable[[Calibration, int], Predictor]:
    """Mean of the members, each standardised on the reference sample, and of the consensus without labels, whose
    weight against theirs is that of :data:`CONSENSUS_LABELS` labels against those there are."""

    def fit(known: Calibration, seed: int) -> Predictor:
        encode = Encoder(known.usual, scores, features)
        columns, target_C = encode(known.labelled), _target(known.accuracy_C)
        usual = encode(known.usual)
        members: list[tuple[float, float, Fitted]] = []  # mean and weight / deviation on the reference, predictor

        def scaled(on_reference: np.ndarray, weight: float) -> tuple[float, float]:
            deviation = float(on_reference.std())
            return float(on_reference.mean()), weight / deviation if deviation > 0 else 0.0

        for member in BLENDED:
            fitted = member(columns, target_C, seed)
            members.append((*scaled(fitted(usual), 1 / len(BLENDED)), fitted))
        consensus = _consensus(known, seed) if scores else None
        if consensus:
            mean, weight = scaled(consensus(known.usual), CONSENSUS_LABELS / len(target_C))
        proxies = tuple(dict.fromkeys((*encode.proxies, *(consensus.proxies if consensus else ()))))

        def values(sample: Sample) -> np.ndarray:
            encoded = encode(sample)
            total = sum((w * (predict(encoded) - m) for m, w, predict in members), np.zeros(len(sample)))
            return total + weight * (consensus(sample) - mean) if consensus else total

        return Predictor(proxies, values)

    return fit
