"""ZiCo (Li et al., ICLR 2023)."""

from libranas.zero_cost.captures import Gradient
from libranas.zero_cost.options import Options
from libranas.zero_cost.proxies.common import log_ratio, numbers, without_empty
from libranas.zero_cost.proxy import DATA, Proxy


def _zico(gradient: Gradient, options: Options):
    return {"log": log_ratio(gradient, gradient.std_OI if options.zico_variance == "signed" else gradient.abs_std_OI)}


def _combine_zico(places, _):
    per_layer = without_empty(numbers(places, "log"))
    return sum(per_layer), {"per_layer": per_layer}


ZICO = Proxy(
    name="zico",
    version=1,
    title="sum over layers of log sum E|g| / std(g)",
    source="Li et al., ZiCo (ICLR 2023), Eq. 14; signed std as in the released code unless zico_variance='abs'",
    run=DATA,
    captures=lambda options: {"spread" if options.zico_variance == "signed" else "abs_spread": _zico},
    combine=_combine_zico,
    components={"per_layer": ("layer",)},
)
