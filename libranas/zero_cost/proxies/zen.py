"""Zen-score: how much a feature map moves with its image, in networks with Gaussian weights; no labels."""

from libranas.core.lazy import torch
from libranas.zero_cost.captures import Perturbation
from libranas.zero_cost.proxies.common import numbers
from libranas.zero_cost.proxy import GAUSSIAN, Proxy


def _zen(perturbation: Perturbation, _):
    terms = torch.tensor([perturbation.difference], dtype=torch.float64).log().sum()
    terms += torch.tensor(perturbation.batch_norm_variances, dtype=torch.float64).log().sum() / 2
    return {"score": terms.item()}


def _combine(places, _):
    scores = numbers(places, "score")
    return sum(scores) / len(scores), {}


ZEN = Proxy(
    name="zen",
    version=1,
    title="log E ||f(x) - f(x + 0.01 eps)||_1 before the pooling + sum over batch norms of log sqrt(variance), "
    "mean over draws of weights and noise",
    source="Lin et al., Zen-NAS (ICCV 2021), Algorithm 1; residual links kept",
    run=GAUSSIAN,
    captures={"perturbation": _zen},
    combine=_combine,
    undefined_for="the feature map before the pooling is unknown; name it with the option `features`",
)
