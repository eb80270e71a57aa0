"""GraSP: what a step along the gradient does to the gradient; second derivatives on real images."""

from libranas.zero_cost.proxies.common import sum_over_layers, total
from libranas.zero_cost.proxy import HESSIAN, Proxy

GRASP = Proxy(
    name="grasp",
    version=1,
    title="-sum over layers of sum W * (H dL/dW), H the Hessian of the loss at all layers' weights",
    source="Wang et al., GraSP (ICLR 2020), with the sign of Abdelfattah et al. (ICLR 2021); the sign of its "
    "correlation differs between spaces",
    run=HESSIAN,
    captures={"curvature": lambda curvature, _: {"per_layer": -total(curvature.weight_OI * curvature.product_OI)}},
    combine=sum_over_layers,
    components={"per_layer": ("layer",)},
)
