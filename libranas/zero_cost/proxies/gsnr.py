"""Gradient signal-to-noise ratio (Sun et al., ICCV 2023)."""

from libranas.zero_cost.captures import Gradient
from libranas.zero_cost.proxies.common import sum_over_layers, total
from libranas.zero_cost.proxy import DATA, Proxy

#: What keeps a weight without variance finite in GSNR.
XI = 1e-8


def _gsnr(gradient: Gradient, _):
    return {"per_layer": total(gradient.mean_OI.square() / gradient.std_OI.square().add_(XI))}


GSNR = Proxy(
    name="gsnr",
    version=1,
    title="sum over layers of sum (E g)^2 / (Var g + 1e-8)",
    source="Sun et al., Unleashing the power of gradient signal-to-noise ratio for zero-shot NAS (ICCV 2023), xi-GSNR",
    run=DATA,
    captures=lambda options: {"accumulated" if options.gsnr_accumulate else "spread": _gsnr},
    combine=sum_over_layers,
    components={"per_layer": ("layer",)},
)
