"""Size: #params, MACs and norm of the weights. No forward values, no data; the baselines to beat."""

from libranas.core.lazy import torch
from libranas.zero_cost.captures import Weight
from libranas.zero_cost.proxies.common import sum_over_layers
from libranas.zero_cost.proxy import ANALYTIC, Proxy


def _l2_norm(weight: Weight, _):
    return {"per_layer": torch.linalg.vector_norm(weight.weight_OI, dtype=torch.float64)}


PARAMS = Proxy(
    name="params",
    version=1,
    title="number of trainable parameters",
    source="baseline",
    run=ANALYTIC,
    captures={"network": lambda network, _: {"params": network.params}},
    combine=lambda places, _: (float(places[0]["params"]), {}),
)

FLOPS = Proxy(
    name="flops",
    version=1,
    title="multiply-accumulates of one image: convolutions and all matrix products, attention included",
    source="baseline",
    run=ANALYTIC,
    captures={"network": lambda network, _: {"macs": network.macs}},
    combine=lambda places, _: (float(places[0]["macs"]), {}),
)

L2_NORM = Proxy(
    name="l2_norm",
    version=1,
    title="sum over layers of ||W||_2",
    source="Krishnakumar et al., NAS-Bench-Suite-Zero (NeurIPS 2022)",
    run=ANALYTIC,
    captures={"weight": _l2_norm},
    combine=sum_over_layers,
    components={"per_layer": ("layer",)},
)
