"""The blend: the mean of several learners and, with few labels, of the consensus."""

from dataclasses import dataclass

import numpy as np

from libranas.predictors.base import Calibration, Combiner, Predictor, Sample
from libranas.predictors.encoder import Encoder
from libranas.predictors.label_free import consensus
from libranas.predictors.learners import Model, boosting, forest, gp, gp_weighted, target

BLENDED = (forest, boosting, gp, gp_weighted)
#: The blend gives the consensus without labels the weight of this many labels.
CONSENSUS_LABELS = 3


@dataclass(frozen=True)
class Scale:
    """Standardises values on the reference sample, and gives them a weight."""

    mean: float
    factor: float

    @classmethod
    def of(cls, value_R: np.ndarray, weight: float) -> "Scale":
        deviation = float(value_R.std())
        return cls(float(value_R.mean()), weight / deviation if deviation > 0 else 0.0)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return self.factor * (values - self.mean)


@dataclass(frozen=True)
class Blend:
    """The sum of models on the columns of architectures and, if there is one, of a ranking without labels."""

    encode: Encoder
    models: list[tuple[Scale, Model]]
    rest: tuple[Scale, Predictor] | None

    def __call__(self, sample: Sample) -> np.ndarray:
        columns = self.encode(sample)
        total = sum((scale(model.predict(columns)) for scale, model in self.models), np.zeros(len(sample)))
        if self.rest is None:
            return total
        scale, ranking = self.rest
        return total + scale(ranking(sample))


def _combiner(name: str, title: str, scores: bool, features: bool, columns=(), shown: bool = False) -> Combiner:
    def fit(known: Calibration, seed: int) -> Predictor:
        """Take the mean of the members, each standardised on the reference sample, and of the consensus without labels,
        whose weight against theirs is that of :data:`CONSENSUS_LABELS` labels against those there are."""
        encode = Encoder(known.usual, scores, features)
        learned_from, target_C, reference = encode(known.labelled), target(known.accuracy_C), encode(known.usual)
        models = [learner(learned_from, target_C, seed) for learner in BLENDED]
        scaled = [(Scale.of(model.predict(reference), 1 / len(BLENDED)), model) for model in models]
        proxies, rest = encode.proxies, None
        if scores:
            ranking = consensus(known.usual)
            rest = Scale.of(ranking(known.usual), CONSENSUS_LABELS / len(target_C)), ranking
            proxies = tuple(dict.fromkeys((*proxies, *ranking.proxies)))
        return Predictor(proxies, Blend(encode, scaled, rest))

    return Combiner(name, title, fit, columns=columns, shown=shown)


BLEND = _combiner("blend", "blend of learners", scores=True, features=True, shown=True)
BLEND_PROXIES = _combiner("blend_proxies", "blend, proxies only", scores=True, features=False)
BLEND_FEATURES = _combiner("blend_features", "blend, features only", scores=False, features=True, columns=("features",))
