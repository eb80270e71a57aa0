"""Combiners: ways to make one ranking of architectures from proxies, sizes and, where some are known, accuracies.

Every combiner is fitted once, on a :class:`Calibration` (labelled architectures and a reference sample without labels),
and gives a predictor: a function from a :class:`Sample` of any architectures to values, higher = better, in which the
value of one does not depend on the others in the sample. So it ranks a table and serves as the fitness of a search
alike. Sums of ranks are ranks among the reference sample.

Learners see what can be had without training a network: proxies and #params as normal scores of their ranks in the
reference sample, and, where they are given, the features of the architecture (``space.features``), standardised.
Their target is the rank of the accuracy. Scores that are not finite rank below all finite ones.

Shape suffixes: A architectures, C labelled, R reference, P proxies, F features, D columns of a learner.
"""

from collections.abc import Callable

import numpy as np

from libranas.core.stats import rank_last, spearman
from libranas.predictors.base import Calibration, Combiner, Predictor
from libranas.predictors.blend import _blend
from libranas.predictors.label_free import AZ_NAS, TE_NAS, _consensus, _params, _single, _te_nas
from libranas.predictors.learners import (
    _extra_trees,
    _forest,
    _gp,
    _gp_weighted,
    _lambdarank,
    _learned,
    _lightgbm,
    _ridge,
    _stack,
)
from libranas.predictors.libra import choose
from libranas.predictors.ranks import _log_rank


def _z1(known: Calibration, seed: int) -> Predictor:
    rho = {name: spearman(known.labelled.score_AP[name], known.accuracy_C) for name in known.labelled.score_AP.columns}
    # a constant proxy has no rho and can only be best if there is nothing else
    best = max(sorted(rho), key=lambda name: -np.inf if np.isnan(rho[name]) else rho[name])
    return Predictor((best,), lambda sample: rank_last(sample.score_AP[best]))


def _libra(mode: str) -> Callable[[Calibration, int], Predictor]:
    def fit(known: Calibration, seed: int) -> Predictor:
        choice = choose(known.labelled.score_AP, known.accuracy_C, known.labelled.params_A, mode, seed=seed)
        return _log_rank(choice.proxies)(known, seed)

    return fit


#: Every combiner by name, those without labels first.
COMBINERS = {
    c.name: c
    for c in (
        Combiner("params", False, _params),
        Combiner("flops", False, _single("flops"), ("flops",)),
        Combiner("log_rank_all", False, _log_rank(None)),
        Combiner("az_nas", False, _log_rank(AZ_NAS), AZ_NAS),
        Combiner("te_nas", False, _te_nas, TE_NAS),
        Combiner("tcet", False, _single("tcet"), ("tcet",)),
        Combiner("consensus", False, _consensus),
        Combiner("z1", True, _z1),
        Combiner("libra_literal", True, _libra("literal")),
        Combiner("libra_corrected", True, _libra("corrected")),
        Combiner("ridge_ranks", True, _learned(_ridge)),
        Combiner("lightgbm", True, _learned(_lightgbm)),
        Combiner("lambdarank", True, _learned(_lambdarank)),
        Combiner("forest", True, _learned(_forest)),
        Combiner("extra_trees", True, _learned(_extra_trees)),
        Combiner("gp", True, _learned(_gp)),
        Combiner("gp_weighted", True, _learned(_gp_weighted)),
        Combiner("stack", True, _learned(_stack)),
        Combiner("blend", True, _blend(True, True)),
        Combiner("blend_proxies", True, _blend(True, False)),
        Combiner("blend_features", True, _blend(False, True), ("features",)),
    )
}
