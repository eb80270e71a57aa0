"""SWAP-Score, also regularised (Peng et al., ICLR 2024)."""

import math

from libranas.zero_cost.options import Options
from libranas.zero_cost.proxies.patterns import NO_ACTIVATION, distinct, patterns, sizes
from libranas.zero_cost.proxy import DATA, Proxy, Undefined


def _combine_swap(places, _):
    patterns = [place["patterns"] for place in places]
    return distinct(patterns), {"words": sizes(patterns)}


SWAP = Proxy(
    name="swap",
    version=1,
    title="number of distinct sample-wise activation patterns over all layers",
    source="Peng et al., SWAP-NAS (ICLR 2024), Definition 3; GELU as in its transformer version",
    run=DATA,
    captures={"activation": lambda activation, _: {"patterns": patterns(activation)}},
    combine=_combine_swap,
    components={"words": ("activation",)},
    undefined_for=NO_ACTIVATION,
)


def _combine_reg_swap(parts, options: Options):
    if options.reg_swap is None:
        raise Undefined("give the option reg_swap=(mu, sigma): the size to favour and the width, in thousands")
    mu, sigma = options.reg_swap
    thousands = parts["params"].value / 1000
    return parts["swap"].value * math.exp(-((thousands - mu) ** 2) / sigma), {}


REG_SWAP = Proxy(
    name="reg_swap",
    version=1,
    title="SWAP * exp(-(params/1000 - mu)^2 / sigma)",
    source="Peng et al., SWAP-NAS (ICLR 2024), regularised; sigma is not squared",
    run=DATA,
    parts=("swap", "params"),
    combine=_combine_reg_swap,
    undefined_for="the option reg_swap is not given",
)
