"""Proxies of the network with absolute weights on one image of ones, in float64; no data, no labels."""

import math

import torch

from libranas.proxies.base import SYNAPTIC, Proxy


def _combine_synflow(places, _):
    total = sum(places)
    return (math.log(total) if total > 0 else float("-inf")), {"per_layer": places}


SYNFLOW = Proxy(
    name="synflow",
    version=1,
    title="log of the sum over layers of sum |W * dR/dW|, R the sum of the logits",
    source="Tanaka et al., SynFlow (NeurIPS 2020); LayerNorm kept unless synflow_ln='identity'",
    run=SYNAPTIC,
    need="saliency",
    reduce=lambda saliency, _: saliency.saliency_OI.sum(dtype=torch.float64).item(),
    combine=_combine_synflow,
    components={"per_layer": ("layer",)},
)

PROXIES = (SYNFLOW,)
