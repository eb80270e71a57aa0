"""Lambda of L-SWAG (Casarin et al., CVPR 2025, Eq. 1)."""

import math

import torch

from libranas.zero_cost.captures import Gradient
from libranas.zero_cost.options import Options
from libranas.zero_cost.proxies.common import numbers
from libranas.zero_cost.proxies.gradient_common import _total, _varying, without_empty
from libranas.zero_cost.proxy import DATA, Proxy

#: What is added to every standard deviation by lambda_floor='epsilon'.
EPSILON = 1e-8
#: The quantile of lambda_floor='clip' and 'trim'.
QUANTILE = 1e-3


def _quantile(values: torch.Tensor, q: float) -> torch.Tensor:
    """The linearly interpolated quantile of any number of values, without sorting them."""
    values = values.flatten()
    position = q * (len(values) - 1)
    low, high = (values.kthvalue(math.floor(position) + step).values for step in (1, min(2, len(values))))
    return torch.lerp(low, high, position - math.floor(position))


def _floored(std_OI: torch.Tensor, floor: str) -> torch.Tensor:
    """The standard deviations that enter Lambda, by the option ``lambda_floor``.

    ``clip`` and ``trim`` leave out constant weights as well, and their quantile is that of the others.
    """
    if floor == "epsilon":
        return std_OI + EPSILON
    std, _ = _varying(std_OI)
    if floor == "drop" or not std.numel():
        return std
    lowest = _quantile(std, QUANTILE)
    return std.clamp(min=lowest) if floor == "clip" else std[std >= lowest]


def _lambda(gradient: Gradient, options: Options):
    std_OI = gradient.std_OI if options.lambda_variance == "signed" else gradient.abs_std_OI
    if options.lambda_ddof:
        std_OI = std_OI * math.sqrt(gradient.units / max(1, gradient.units - options.lambda_ddof))
    thirds = options.lambda_split_qkv and gradient.name.endswith("qkv") and len(std_OI) % 3 == 0
    parts = [_floored(part, options.lambda_floor) for part in (std_OI.chunk(3) if thirds else [std_OI])]
    kept = sum(part.numel() for part in parts)
    return {
        "name": gradient.name,
        "logs": torch.stack([_total(part.reciprocal()).log() for part in parts]),  # -inf if no weight varies
        "log_sigma": sum(_total(part.log()) for part in parts) / (kept or math.nan),
        "dropped": std_OI.numel() - kept,
    }


def _combine_lambda(places, options: Options):
    logs = [place["logs"].tolist() for place in places]
    without_empty([log for of_layer in logs for log in of_layer])
    logs = [[log for log in of_layer if log != -math.inf] for of_layer in logs]
    left_out = _left_out([place["name"] for place in places], options)
    pooled: dict[str, list[float]] = {}
    for place, of_layer in zip(places, logs, strict=True):
        if place["name"] not in left_out:
            key = _block(place["name"]) if options.lambda_pool == "block" else place["name"]
            pooled.setdefault(key, []).extend(of_layer)
    if options.lambda_pool == "block":
        value = sum(
            torch.tensor(of_block, dtype=torch.float64).logsumexp(0).item() for of_block in pooled.values() if of_block
        )
    else:
        value = sum(sum(of_layer) for of_layer in pooled.values())
    components = {key: numbers(places, key) for key in ("log_sigma", "dropped")}
    return float(value), {"lambda": [sum(of_layer) for of_layer in logs], **components}


def _left_out(names: list[str], options: Options) -> set[str]:
    """Names of the layers that the option ``lambda_exclude`` leaves out.

    The network's first or last layer may itself lie outside of the window and not be among the `names`.
    """
    low, high = options.window or (0.0, 1.0)
    ends = {"first": names[0] if low <= 0 else None, "last": names[-1] if high >= 1 else None}
    return {ends.get(name, name) for name in options.lambda_exclude}


def _block(layer: str) -> str:
    """The block of a layer: its name up to the first number in it, or the layer alone."""
    parts = layer.split(".")
    number = next((i for i, part in enumerate(parts) if part.isdigit()), len(parts))
    return ".".join(parts[: number + 1])


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
