"""SynFlow (Tanaka et al., NeurIPS 2020)."""

import math

from libranas.core.lazy import torch
from libranas.zero_cost.captures import Saliency
from libranas.zero_cost.options import Options
from libranas.zero_cost.proxies.common import numbers
from libranas.zero_cost.proxy import SYNAPTIC, Proxy


def flow(saliency: Saliency, _):
    return {"per_layer": saliency.saliency_OI.sum(dtype=torch.float64)}


def _combine_synflow(places, _):
    per_layer = numbers(places, "per_layer")
    total = sum(per_layer)
    value = math.log(total) if total > 0 else (-math.inf if total == 0 else math.nan)
    return value, {"per_layer": per_layer}


def _need(options: Options) -> str:
    return "bare_saliency" if options.synflow_ln == "identity" else "saliency"


SYNFLOW = Proxy(
    name="synflow",
    version=1,
    title="log of the sum over layers of sum |W * dR/dW|, R the sum of the logits",
    source="Tanaka et al., SynFlow (NeurIPS 2020); LayerNorm kept unless synflow_ln='identity'",
    run=SYNAPTIC,
    captures=lambda options: {_need(options): flow},
    combine=_combine_synflow,
    components={"per_layer": ("layer",)},
)
