"""Proxies of the network with absolute weights on one image of ones, in float64; no data, no labels."""

import math

import torch

from libranas.proxies.base import SYNAPTIC, Options, Proxy, Saliency, Undefined
from libranas.proxies.common import numbers


def _flow(saliency: Saliency, _):
    return {"per_layer": saliency.saliency_OI.sum(dtype=torch.float64)}


def _combine_synflow(places, _):
    per_layer = numbers(places, "per_layer")
    total = sum(per_layer)
    value = math.log(total) if total > 0 else (-math.inf if total == 0 else math.nan)
    return value, {"per_layer": per_layer}


def _dss(saliency: Saliency, _):
    """Synaptic diversity of a linear layer of an attention, synaptic saliency of another one."""
    if saliency.kind == "convolution":
        return {"kind": saliency.kind, "per_layer": math.nan}
    if saliency.kind == "linear":
        return {"kind": saliency.kind, **_flow(saliency, None)}
    if not saliency.gradient_OI.isfinite().all():
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


def _need(options: Options) -> str:
    return "bare_saliency" if options.synflow_ln == "identity" else "saliency"


NO_ATTENTION = "the network has no linear layer of an attention"

SYNFLOW = Proxy(
    name="synflow",
    version=1,
    title="log of the sum over layers of sum |W * dR/dW|, R the sum of the logits",
    source="Tanaka et al., SynFlow (NeurIPS 2020); LayerNorm kept unless synflow_ln='identity'",
    run=SYNAPTIC,
    captures=lambda options: {_need(options): _flow},
    combine=_combine_synflow,
    components={"per_layer": ("layer",)},
)

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

PROXIES = (SYNFLOW, DSS)
