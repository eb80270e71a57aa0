"""Fisher (Turner et al., BlockSwap, ICLR 2020)."""

from libranas.zero_cost.captures import Signal
from libranas.zero_cost.options import Options
from libranas.zero_cost.proxies.common import sum_over_layers, total
from libranas.zero_cost.proxy import DATA, Proxy


def _fisher(signal: Signal, options: Options):
    over_channels = signal.tokens and options.fisher_axis == "token"
    summed = signal.product_BPD.sum(2 if over_channels else 1)
    fan_in = signal.fan_in if options.fisher_fan_in else 1
    return {"per_layer": total(summed.square_()) * (0.5 * fan_in / signal.batch)}


FISHER = Proxy(
    name="fisher",
    version=1,
    title="sum over layers and channels of fan-in * 1/2 mean over images of (sum over positions of a * dL/da)^2",
    source="Theis et al. (2018); Turner et al., BlockSwap (ICLR 2020); weighted by fan-in as in NAS-Bench-Suite-Zero",
    run=DATA,
    captures={"signal": _fisher},
    combine=sum_over_layers,
    components={"per_layer": ("layer",)},
)
