"""SynFlow (Tanaka et al., NeurIPS 2020)."""

import math

from libranas.zero_cost.captures import Saliency
from libranas.zero_cost.proxies.common import numbers, total
from libranas.zero_cost.proxy import SYNAPTIC, Proxy


def flow(saliency: Saliency, _):
    return {"per_layer": total(saliency.saliency_OI)}


def _combine_synflow(places, _):
    per_layer = numbers(places, "per_layer")
    whole = sum(per_layer)
    value = math.log(whole) if whole > 0 else (-math.inf if whole == 0 else math.nan)
    return value, {"per_layer": per_layer}


SYNFLOW = Proxy(
    name="synflow",
    version=1,
    title="log of the sum over layers of sum |W * dR/dW|, R the sum of the logits",
    source="Tanaka et al., SynFlow (NeurIPS 2020); LayerNorm kept unless synflow_ln='identity'",
    run=SYNAPTIC,
    captures=lambda options: {"bare_saliency" if options.synflow_ln == "identity" else "saliency": flow},
    combine=_combine_synflow,
    components={"per_layer": ("layer",)},
)
