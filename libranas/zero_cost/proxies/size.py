"""Size: #params, MACs and norm of the weights. No forward values, no data; the baselines to beat."""

from libranas.core.lazy import torch
from libranas.zero_cost.proxies.common import only_value, sum_over_layers
from libranas.zero_cost.proxy import ANALYTIC, Proxy

PARAMS = Proxy(
    name="params",
    version=1,
    title="number of trainable parameters",
    source="baseline",
    run=ANALYTIC,
    captures={"network": lambda network, _: {"value": network.params}},
    combine=only_value,
)

FLOPS = Proxy(
    name="flops",
    version=1,
    title="multiply-accumulates of one image: convolutions and all matrix products, attention included",
    source="baseline",
    run=ANALYTIC,
    captures={"network": lambda network, _: {"value": network.macs}},
    combine=only_value,
)

L2_NORM = Proxy(
    name="l2_norm",
    version=1,
    title="sum over layers of ||W||_2",
    source="Krishnakumar et al., NAS-Bench-Suite-Zero (NeurIPS 2022)",
    run=ANALYTIC,
    captures={
        "weight": lambda weight, _: {"per_layer": torch.linalg.vector_norm(weight.weight_OI, dtype=torch.float64)}
    },
    combine=sum_over_layers,
    components={"per_layer": ("layer",)},
)
