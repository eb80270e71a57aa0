"""T-CET."""

import math

from libranas.core.lazy import torch
from libranas.zero_cost.captures import Gradient, Saliency
from libranas.zero_cost.proxies.common import log_determinant, numbers
from libranas.zero_cost.proxies.patterns import agreement
from libranas.zero_cost.proxy import DATA, Proxy, Undefined


def _signal_to_noise(captured: Gradient | Saliency, _):
    """Sum of the saliencies of a layer's weights over their standard deviation (ddof 1)."""
    saliency_OI = captured.saliency_OI.abs()
    count = saliency_OI.numel()
    total = saliency_OI.sum(dtype=torch.float64)
    mean = total / count
    std = torch.linalg.vector_norm(saliency_OI - mean, dtype=torch.float64) / math.sqrt(max(1, count - 1))
    # Equal saliencies have no noise; what is left of them is rounding.
    rounding = 4 * torch.finfo(saliency_OI.dtype).eps * mean
    return {"snr": torch.where(std <= rounding, total, total / std)}


def _combine_tcet(places, _):
    nu = log_determinant(torch.stack([place["kernel"] for place in places])).tolist()
    if all(n == -math.inf for n in nu):
        raise Undefined("the kernel of the output signs is singular in every layer: too few units for the samples")
    nu = [0.0 if n == -math.inf else n for n in nu]
    snr = numbers(places, "snr")
    per_layer = [n * (math.log(s) if s > 0 else s) for n, s in zip(nu, snr, strict=True)]
    return sum(per_layer), {"per_layer": per_layer, "nu": nu}


TCET = Proxy(
    name="tcet",
    version=1,
    title="sum over layers of log(SNR of |W * dL/dW|) * log det of the kernel of agreeing signs of their outputs",
    source="Xiang et al., Exploiting network compressibility and topology in zero-cost NAS (AutoML 2023); "
    "|W * dR/dW| of the synaptic pass with tcet_saliency='synflow'",
    run=DATA,
    captures=lambda options: {
        "output": agreement,
        "gradient" if options.tcet_saliency == "snip" else "saliency": _signal_to_noise,
    },
    combine=_combine_tcet,
    components={"per_layer": ("layer",), "nu": ("layer",)},
)
