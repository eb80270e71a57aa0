"""SNIP, plain and the gradient norm (Abdelfattah et al., Zero-cost proxies, ICLR 2021)."""

from libranas.core.lazy import torch
from libranas.zero_cost.proxies.common import sum_over_layers, total
from libranas.zero_cost.proxy import DATA, Proxy

PLAIN = Proxy(
    name="plain",
    version=1,
    title="sum over layers of sum W * dL/dW, signed",
    source="Abdelfattah et al., Zero-cost proxies (ICLR 2021); sign of its correlation differs between spaces",
    run=DATA,
    captures={"gradient": lambda gradient, _: {"per_layer": total(gradient.saliency_OI)}},
    combine=sum_over_layers,
    components={"per_layer": ("layer",)},
)
SNIP = Proxy(
    name="snip",
    version=1,
    title="sum over layers of sum |W * dL/dW|",
    source="Lee et al., SNIP (ICLR 2019); Abdelfattah et al. (ICLR 2021)",
    run=DATA,
    captures={"gradient": lambda gradient, _: {"per_layer": total(gradient.saliency_OI.abs())}},
    combine=sum_over_layers,
    components={"per_layer": ("layer",)},
)
GRAD_NORM = Proxy(
    name="grad_norm",
    version=1,
    title="sum over layers of ||dL/dW||_2",
    source="Abdelfattah et al., Zero-cost proxies (ICLR 2021)",
    run=DATA,
    captures={
        "gradient": lambda gradient, _: {"per_layer": torch.linalg.vector_norm(gradient.mean_OI, dtype=torch.float64)}
    },
    combine=sum_over_layers,
    components={"per_layer": ("layer",)},
)
