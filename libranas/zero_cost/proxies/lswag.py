"""L-SWAG (Casarin et al., CVPR 2025, Eq. 1): components of Lambda and Psi by layer, and their values over all layers.

The components are combined by :mod:`libranas.zero_cost.lswag`.
"""

import math

import numpy as np

from libranas.zero_cost import lswag
from libranas.zero_cost.captures import Activation, Gradient
from libranas.zero_cost.options import Options
from libranas.zero_cost.proxies.common import numbers, total, varying, without_empty
from libranas.zero_cost.proxies.patterns import NO_ACTIVATION, patterns, window_unions
from libranas.zero_cost.proxy import DATA, Proxy, Undefined


def _lambda(gradient: Gradient, options: Options):
    std_OI = gradient.std_OI if options.lambda_variance == "signed" else gradient.abs_std_OI
    if options.lambda_ddof:
        std_OI = std_OI * math.sqrt(gradient.units / max(1, gradient.units - options.lambda_ddof))
    std, _ = varying(std_OI, gradient)
    return {
        "name": gradient.name,
        "log": total(std.reciprocal()).log(),  # -inf if no weight varies
        "log_sigma": total(std.log()) / (std.numel() or math.nan),
        "dropped": std_OI.numel() - std.numel(),
    }


def _combine_lambda(places, options: Options):
    names = [place["name"] for place in places]
    components = {
        "lambda": np.array(without_empty(numbers(places, "log"))),
        "log_sigma": np.array(numbers(places, "log_sigma")),
        "dropped": numbers(places, "dropped"),
    }
    if np.isnan(components["lambda"][lswag.counted(names, options)]).any():
        return math.nan, components  # a gradient overflowed: not a layer that was not looked at
    value = float(lswag.lambda_of(components, names, options))
    if math.isnan(value):
        raise Undefined("the option lambda_exclude leaves no layer with a gradient that varies")
    return value, components


LSWAG_LAMBDA = Proxy(
    name="lswag_lambda",
    version=1,
    title="trainability: sum over layers of log sum 1 / std|g|",
    source="Casarin et al., L-SWAG (CVPR 2025), Eq. 1, Lambda; all layers (windows are applied to the components)",
    run=DATA,
    captures=lambda options: {"spread" if options.lambda_variance == "signed" else "abs_spread": _lambda},
    combine=_combine_lambda,
    components={"lambda": ("layer",), "log_sigma": ("layer",), "dropped": ("layer",)},
)


def _psi(activation: Activation, options: Options):
    return {"patterns": patterns(activation, options.psi_samples), "units": activation.bits_SV.shape[1]}


def _combine_psi(places, options: Options):
    union_MM = window_unions([place["patterns"] for place in places])
    components = {
        "words": union_MM.diagonal(),
        "units": [place["units"] for place in places],
        "union": union_MM,
    }
    return float(lswag.psi_of(components, options)), components


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


def _combine_product(parts, options: Options):
    lambda_, psi = parts["lswag_lambda"], parts["lswag_psi"]
    value = float(lswag.product(lambda_.value, psi.value, lswag.layers_looked_at(lambda_.components), options))
    if math.isnan(value):
        raise Undefined(lswag.NOT_POSITIVE)
    return value, {}


LSWAG = Proxy(
    name="lswag",
    version=2,
    title="Lambda x Psi",
    source="Casarin et al., L-SWAG (CVPR 2025), Eq. 1; all layers",
    run=DATA,
    parts=("lswag_lambda", "lswag_psi"),
    combine=_combine_product,
    undefined_for=NO_ACTIVATION,
)
