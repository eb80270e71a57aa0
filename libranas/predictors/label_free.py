"""Combiners that need no accuracy."""

from dataclasses import dataclass

import numpy as np

from libranas.core.stats import rank_last
from libranas.predictors.base import Calibration, Combiner, Predictor, Sample
from libranas.predictors.ranks import Fractions, log_rank_within


@dataclass(frozen=True)
class Size:
    """The number of parameters."""

    def __call__(self, sample: Sample) -> np.ndarray:
        return sample.params_A.to_numpy(dtype=np.float64)


@dataclass(frozen=True)
class NormalSize:
    """Normal scores of the number of parameters."""

    fractions: Fractions

    def __call__(self, sample: Sample) -> np.ndarray:
        return self.fractions.normal(sample.params_A)


@dataclass(frozen=True)
class OneProxy:
    """One proxy by itself."""

    proxy: str

    def __call__(self, sample: Sample) -> np.ndarray:
        return rank_last(sample.score_AP[self.proxy])


@dataclass(frozen=True)
class RankSum:
    """Sum of the ranks of proxies within the reference sample."""

    fractions: dict[str, Fractions]

    def __call__(self, sample: Sample) -> np.ndarray:
        return sum(rank(sample.score_AP[p]) for p, rank in self.fractions.items())


def one_proxy(proxy: str) -> Predictor:
    return Predictor((proxy,), OneProxy(proxy))


def _te_nas(reference: Sample) -> Predictor:
    fractions = {p: Fractions(reference.score_AP[p]) for p in TE_NAS_PROXIES}
    return Predictor(TE_NAS_PROXIES, RankSum(fractions))


#: Proxies of the published combinations; ntk_cond, minus the condition number, is stored as higher = better.
AZ_NAS_PROXIES = ("az_expressivity", "az_progressivity", "az_trainability", "flops")
TE_NAS_PROXIES = ("ntk_cond", "linear_regions")
#: Proxies that rank convolutional networks where nothing is labelled, and what takes their place in tables without
#: them. Fixed, not learned: weights learned on four spaces were worse on the fifth (0.37 to 0.53 mean Spearman on 13
#: published tables; the second pair has 0.62). The first four were chosen on three tables (NAS-Bench-201 with
#: CIFAR-100, TransNAS-Bench-101 micro with object classification and jigsaw).
CONSENSUS_PROXIES = ("flops", "lswag_sample", "az_expressivity", "az_trainability")
CONSENSUS_WITHOUT = ("flops", "nwot")

#: The same for transformers: large for many weights, operations and patterns. With patches of one size these are as
#: good as size or better.
TRANSFORMER_PROXIES = ("params", "flops", "nwot")
#: And for transformers whose patches differ: there the sign of size depends on the images. nngp sees how well the
#: untrained network tells these classes apart, jacov how well it tells any images apart. The best four, fewer included,
#: on the first 28 networks of five tasks of vit-six, which no longer judge them, and on two sets of short trainings
#: (docs/vision-transformers.md).
PATCH_PROXIES = ("params", "nngp", "jacov", "nwot")
#: What only transformers have: a proxy that varies, and the beginning of a feature's name.
TRANSFORMER_MARK, TRANSFORMER_FEATURE = "dss", "num_heads"
#: Feature that networks have if their patches differ.
PATCH_FEATURE = "patch_size_log2"


def consensus_of(reference: Sample) -> tuple[tuple[str, ...], str]:
    """Return the proxies that rank networks of this kind without labels, none for #params, and why these."""
    features = () if reference.feature_AF is None else reference.feature_AF.columns
    if TRANSFORMER_MARK not in reference.varying and not any(f.startswith(TRANSFORMER_FEATURE) for f in features):
        kind, proxies, without = "no transformers", CONSENSUS_PROXIES, CONSENSUS_WITHOUT
    elif PATCH_FEATURE in features and np.ptp(reference.feature_AF[PATCH_FEATURE]) > 0:
        kind, proxies, without = "transformers whose patches differ", PATCH_PROXIES, TRANSFORMER_PROXIES
    else:
        kind, proxies, without = "transformers with patches of one size", TRANSFORMER_PROXIES, TRANSFORMER_PROXIES
    why = f"the networks are {kind}"
    if missing := [p for p in proxies if p not in reference.varying]:
        why += f"; missing, or the same for all: {', '.join(missing)}"
        proxies = tuple(p for p in without if p in reference.varying)
    return proxies, why


def consensus(reference: Sample) -> Predictor:
    """Log rank of the proxies of :func:`consensus_of`; #params if there is none."""
    if proxies := consensus_of(reference)[0]:
        return log_rank_within(reference, proxies)
    return Predictor((), NormalSize(Fractions(reference.params_A)))


def _label_free(name: str, title: str, rank, columns: tuple[str, ...] = (), shown: bool = False) -> Combiner:
    """Make a combiner from a function of the reference sample alone."""

    def fit(known: Calibration, seed: int) -> Predictor:
        return rank(known.usual)

    return Combiner(name, title, fit, needs_labels=False, columns=columns, shown=shown)


PARAMS = _label_free("params", "#params", lambda reference: Predictor((), Size()), shown=True)
FLOPS = _label_free("flops", "FLOPs", lambda reference: one_proxy("flops"), ("flops",))
TCET = _label_free("tcet", "T-CET", lambda reference: one_proxy("tcet"), ("tcet",))
LOG_RANK_ALL = _label_free(
    "log_rank_all", "log-rank of all proxies", lambda reference: log_rank_within(reference, reference.varying)
)
AZ_NAS = _label_free("az_nas", "AZ-NAS", lambda reference: log_rank_within(reference, AZ_NAS_PROXIES), AZ_NAS_PROXIES)
TE_NAS = _label_free("te_nas", "TE-NAS", _te_nas, TE_NAS_PROXIES)
CONSENSUS = _label_free("consensus", "consensus of proxies", consensus, shown=True)
