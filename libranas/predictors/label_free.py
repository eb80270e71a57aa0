"""Combiners that need no accuracy."""

from collections.abc import Callable

import numpy as np

from libranas.core.stats import rank_last
from libranas.predictors.base import Calibration, Predictor, _usable
from libranas.predictors.ranks import Fractions, _log_rank


def _params(known: Calibration, seed: int) -> Predictor:
    return Predictor((), lambda sample: sample.params_A.to_numpy(dtype=np.float64))


def _single(proxy: str) -> Callable[[Calibration, int], Predictor]:
    return lambda known, seed: Predictor((proxy,), lambda sample: rank_last(sample.score_AP[proxy]))


def _te_nas(known: Calibration, seed: int) -> Predictor:
    """Sum of the ranks of the two, -(condition number) and the number of linear regions (TE-NAS)."""
    ranks = {p: Fractions(known.usual.score_AP[p]) for p in TE_NAS}
    return Predictor(TE_NAS, lambda sample: sum(rank(sample.score_AP[p]) for p, rank in ranks.items()))


#: Proxies of the published combinations; ntk_cond is stored as higher = better.
AZ_NAS = ("az_expressivity", "az_progressivity", "az_trainability", "flops")
TE_NAS = ("ntk_cond", "linear_regions")
#: Proxies that rank where nothing is labelled, and what takes their place in tables without them. Fixed, not learned:
#: weights learned on four spaces were worse on the fifth (0.37 to 0.53 mean Spearman on 13 published tables; the second
#: pair has 0.62). The first four were chosen on three tables (NAS-Bench-201 with CIFAR-100, TransNAS-Bench-101 micro
#: with object classification and jigsaw).
CONSENSUS = ("flops", "lswag_sample", "az_expressivity", "az_trainability")
CONSENSUS_WITHOUT = ("flops", "nwot")


def _consensus(known: Calibration, seed: int) -> Predictor:
    """Log rank of the proxies in :data:`CONSENSUS`, if all are there and vary; else of those in
    :data:`CONSENSUS_WITHOUT` that do; #params if none does."""
    usual = known.usual
    usable = _usable(usual.score_AP)
    whole = set(CONSENSUS) <= set(usable)
    if there := [p for p in usable if p in (CONSENSUS if whole else CONSENSUS_WITHOUT)]:
        return _log_rank(there)(known, seed)
    size = Fractions(usual.params_A)
    return Predictor((), lambda sample: size.normal(sample.params_A))
