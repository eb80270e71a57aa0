"""GradSign (Zhang and Jia, ICLR 2022)."""

from libranas.zero_cost.captures import Gradient
from libranas.zero_cost.options import Options
from libranas.zero_cost.proxies.common import numbers, total
from libranas.zero_cost.proxy import DATA, Proxy


def _gradsign(gradient: Gradient, _):
    return {"per_layer": total(gradient.sign_sum_OI.abs()), "weights": gradient.sign_sum_OI.numel()}


def _combine_gradsign(places, options: Options):
    per_layer = numbers(places, "per_layer")
    weights = sum(place["weights"] for place in places) if options.gradsign == "mean" else 1
    return sum(per_layer) / weights, {"per_layer": per_layer}


GRADSIGN = Proxy(
    name="gradsign",
    version=1,
    title="sum over weights of |sum over units of sign(g)|",
    source="Zhang and Jia, GradSign (ICLR 2022), Algorithm 1",
    run=DATA,
    captures={"signs": _gradsign},
    combine=_combine_gradsign,
    components={"per_layer": ("layer",)},
)
