"""L-SWAG of single samples: this project's variant, beside the literal one (:mod:`libranas.zero_cost.proxies.lswag`).

1. Evaluation mode: a sample is a unit of the statistics also in networks with batch normalisation.
2. Lambda keeps the mean, E|g| / std g, which does not depend on the scale of the gradients.
3. Psi does not saturate: a pattern is made of log2(V) + 2 samples, V units in the layer. It is summed over the layers.
"""

import math

from libranas.zero_cost.captures import Activation, Gradient
from libranas.zero_cost.lswag import NOT_POSITIVE
from libranas.zero_cost.proxies.common import log_ratio, numbers, without_empty
from libranas.zero_cost.proxies.patterns import NO_ACTIVATION, patterns, sizes
from libranas.zero_cost.proxy import EVALUATION, Proxy, Undefined

#: Samples of a pattern beyond log2 of the units.
SPARE_BITS = 2


def _lambda(gradient: Gradient, _):
    return {"log": log_ratio(gradient, gradient.std_OI)}


def _combine_lambda(places, _):
    logs = without_empty(numbers(places, "log"))
    return sum(logs), {"lambda": logs}


def _psi(activation: Activation, _):
    samples, units = activation.bits_SV.shape
    bits = min(samples, math.ceil(math.log2(units)) + SPARE_BITS)
    return {"patterns": patterns(activation, bits), "units": units}


def _combine_psi(places, _):
    words = sizes([place["patterns"] for place in places])
    return float(sum(words)), {"words": words, "units": [place["units"] for place in places]}


def _combine_product(parts, _):
    lambda_, psi = (parts[part].value for part in LSWAG_SAMPLE.parts)
    if lambda_ <= 0:
        raise Undefined(NOT_POSITIVE)
    return lambda_ * psi, {}


SOURCE = "this project, after Casarin et al., L-SWAG (CVPR 2025), Eq. 1"

LSWAG_SAMPLE_LAMBDA = Proxy(
    name="lswag_sample_lambda",
    version=1,
    title="trainability of single samples: sum over layers of log sum E|g| / std g",
    source=SOURCE,
    run=EVALUATION,
    captures={"sample_spread": _lambda},
    combine=_combine_lambda,
    components={"lambda": ("layer",)},
)

LSWAG_SAMPLE_PSI = Proxy(
    name="lswag_sample_psi",
    version=1,
    title="unsaturated expressivity: sum over layers of the distinct patterns of log2(units) + 2 samples",
    source=SOURCE,
    run=EVALUATION,
    captures={"sample_activation": _psi},
    combine=_combine_psi,
    components={"words": ("activation",), "units": ("activation",)},
    undefined_for=NO_ACTIVATION,
)

LSWAG_SAMPLE = Proxy(
    name="lswag_sample",
    version=1,
    title="Lambda x Psi of single samples",
    source=SOURCE,
    run=EVALUATION,
    parts=("lswag_sample_lambda", "lswag_sample_psi"),
    combine=_combine_product,
    undefined_for=NO_ACTIVATION,
)
