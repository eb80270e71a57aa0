"""DSS-indicator (Zhou et al., TF-TAS, CVPR 2022)."""

import math

from libranas.zero_cost.captures import Saliency
from libranas.zero_cost.proxies.synflow import flow
from libranas.zero_cost.proxy import SYNAPTIC, Proxy, Undefined
from libranas.zero_cost.spectra import NUCLEAR


def _dss(saliency: Saliency, options):
    """Synaptic diversity of a linear layer of an attention, synaptic saliency of another one."""
    if saliency.kind == "linear":
        return {"kind": saliency.kind, **flow(saliency, None)}
    if saliency.kind == "convolution":
        return {"kind": saliency.kind, "per_layer": math.nan}
    matrices = {"gradient": saliency.gradient_OI, "weight": saliency.weight_OI}
    return {"kind": saliency.kind, **{name: NUCLEAR.at(matrix, options) for name, matrix in matrices.items()}}


def _combine_dss(places, _):
    kinds = [place["kind"] for place in places]
    if "attention" not in kinds:
        raise Undefined(NO_ATTENTION)
    of_attention = [place for place in places if place["kind"] == "attention"]
    gradients, weights = (NUCLEAR.numbers([place[name] for place in of_attention]) for name in ("gradient", "weight"))
    diversity = iter([gradient * weight for gradient, weight in zip(gradients, weights, strict=True)])
    per_layer = [next(diversity) if p["kind"] == "attention" else float(p["per_layer"]) for p in places]
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
