"""Psi of L-SWAG and the product L-SWAG = Lambda x Psi (Casarin et al., CVPR 2025, Eq. 1)."""

import math

import numpy as np

from libranas.zero_cost.captures import Activation
from libranas.zero_cost.options import Options
from libranas.zero_cost.proxies.patterns import NO_ACTIVATION, window_unions
from libranas.zero_cost.proxy import DATA, Proxy, Undefined


def _psi(activation: Activation, options: Options):
    return {"patterns": activation.patterns(options.psi_samples), "units": activation.chosen_SV.shape[1]}


def _combine_psi(places, options: Options):
    patterns = [place["patterns"] for place in places]
    union_MM = window_unions(patterns)
    words = [len(p) for p in patterns]
    value = {
        "union": lambda: float(union_MM[0, -1]),
        "sum": lambda: float(sum(words)),
        "log_sum": lambda: sum(math.log(n) for n in words),
    }[options.psi_merge]()
    return value, {"words": words, "units": [place["units"] for place in places], "union": union_MM}


LSWAG_PSI = Proxy(
    name="lswag_psi",
    version=1,
    title="expressivity: number of distinct sample-wise activation patterns, union over the layers",
    source="Casarin et al., L-SWAG (CVPR 2025), Definitions 1 and 2, Eq. 7; all layers",
    run=DATA,
    captures={"activation": _psi},
    combine=_combine_psi,
    components={"words": ("activation",), "units": ("activation",), "union": ("activation", "activation")},
    undefined_for=NO_ACTIVATION,
)


def _combine_lswag(parts, options: Options):
    lambda_, psi = parts["lswag_lambda"].value, parts["lswag_psi"].value
    if options.lswag_form == "log":
        return lambda_ + (math.log(psi) if psi > 0 else -math.inf), {}
    if lambda_ <= 0:
        raise Undefined(f"Lambda is not positive ({lambda_:.3g}), so the product with Psi would fall as Psi grows")
    if options.lswag_form == "per_layer":  # of the layers that are looked at
        lambda_ /= np.isfinite(parts["lswag_lambda"].components["lambda"]).sum().item()
    return lambda_ * psi, {}


LSWAG = Proxy(
    name="lswag",
    version=2,
    title="Lambda x Psi",
    source="Casarin et al., L-SWAG (CVPR 2025), Eq. 1; all layers",
    run=DATA,
    parts=("lswag_lambda", "lswag_psi"),
    combine=_combine_lswag,
    undefined_for=NO_ACTIVATION,
)
