"""DSS-indicator (Zhou et al., TF-TAS, CVPR 2022)."""

import math

from libranas.zero_cost.captures import Saliency
from libranas.zero_cost.proxies.synflow import flow
from libranas.zero_cost.proxy import SYNAPTIC, Proxy, Undefined
from libranas.zero_cost.spectra import nuclear_norms


def _dss(saliency: Saliency, _):
    """Synaptic diversity of a linear layer of an attention, synaptic saliency of another one."""
    if saliency.kind == "linear":
        return {"kind": saliency.kind, **flow(saliency, None)}
    if saliency.kind == "convolution":
        return {"kind": saliency.kind, "per_layer": math.nan}
    return {"kind": saliency.kind, "matrices": (saliency.gradient_OI, saliency.weight_OI)}


def _combine_dss(places, options):
    kinds = [place["kind"] for place in places]
    if "attention" not in kinds:
        raise Undefined(NO_ATTENTION)
    matrices = [matrix for place in places for matrix in place.get("matrices", ())]
    nuclear = iter(nuclear_norms(matrices, options.tensor_cores))
    per_layer = [next(nuclear) * next(nuclear) if "matrices" in p else float(p["per_layer"]) for p in places]
    value = sum(score for score, kind in zip(per_layer, kinds, strict=True) if kind != "convolution")
    return value, {"per_layer": per_layer}


NO_ATTENTION = "the network has no linear layer of an attention"
DSS = Proxy(
    name="dss",
    version=1,
    title="||dR/dW||_nuc * ||W||_nuc over linear layers of attentions + sum |W * dR/dW| over the other linear layers",
    source="Zhou et al., Training-free transformer architecture search (CVPR 2022), DSS; head counted once",
    run=SYNAPTIC,
    captures={"saliency": _dss},
    combine=_combine_dss,
    components={"per_layer": ("layer",)},
    undefined_for=NO_ATTENTION,
)
