"""DSS-indicator (Zhou et al., TF-TAS, CVPR 2022)."""

import math

from libranas.core.lazy import torch
from libranas.zero_cost.captures import Saliency
from libranas.zero_cost.proxies.common import numbers
from libranas.zero_cost.proxies.synflow import flow
from libranas.zero_cost.proxy import SYNAPTIC, Proxy, Undefined


def _dss(saliency: Saliency, _):
    """Synaptic diversity of a linear layer of an attention, synaptic saliency of another one."""
    if saliency.kind == "linear":
        return {"kind": saliency.kind, **flow(saliency, None)}
    if saliency.kind == "convolution" or not saliency.gradient_OI.isfinite().all():
        return {"kind": saliency.kind, "per_layer": math.nan}
    # On the CPU: singular values are slow on a GPU, two thirds of all scores there (benchmarks/scale/one-gpu.json).
    matrices = saliency.gradient_OI.cpu(), saliency.weight_OI.cpu()
    nuclear = [torch.linalg.matrix_norm(m, ord="nuc") for m in matrices]
    return {"kind": saliency.kind, "per_layer": nuclear[0] * nuclear[1]}


def _combine_dss(places, _):
    kinds = [place["kind"] for place in places]
    if "attention" not in kinds:
        raise Undefined(NO_ATTENTION)
    per_layer = numbers(places, "per_layer")
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
