"""Proxies made from the gradient of the cross-entropy on real images, one forward and backward for all.

Layers are the weights of convolutions and linear layers (head included, biases and norms not), as in
every reference implementation. Variances run over units (samples or micro-batches), ddof 0. Every reduce
reads a layer's tensors a few times at their own precision and sums in float64.
"""

import math

import torch

from libranas.proxies.base import DATA, Gradient, Options, Proxy, Signal, Undefined
from libranas.proxies.common import numbers, sum_over_layers

#: Weights with a standard deviation up to this fraction of the layer's median count as constant
#: (dead units have exactly zero) and are left out of sums of 1/std.
CONSTANT = 1e-12
#: What is added to every standard deviation by lambda_floor='epsilon'.
EPSILON = 1e-8
#: The quantile of lambda_floor='clip' and 'trim'.
QUANTILE = 1e-3
#: What keeps a weight without variance finite in GSNR.
XI = 1e-8


def _total(values: torch.Tensor) -> torch.Tensor:
    return values.sum(dtype=torch.float64)


# -- the gradient of the batch -------------------------------------------------------------------------------


def _plain(gradient: Gradient, _):
    return {"per_layer": _total(gradient.saliency_OI)}


def _snip(gradient: Gradient, _):
    return {"per_layer": _total(gradient.saliency_OI.abs())}


def _grad_norm(gradient: Gradient, _):
    return {"per_layer": torch.linalg.vector_norm(gradient.mean_OI, dtype=torch.float64)}


def _fisher(signal: Signal, options: Options):
    over_channels = signal.tokens and options.fisher_axis == "token"
    total = signal.product_BPD.sum(2 if over_channels else 1).square_()
    fan_in = signal.fan_in if options.fisher_fan_in else 1
    return {"per_layer": _total(total) * (0.5 * fan_in / signal.batch)}


PLAIN = Proxy(
    name="plain",
    version=1,
    title="sum over layers of sum W * dL/dW, signed",
    source="Abdelfattah et al., Zero-cost proxies (ICLR 2021); sign of its correlation differs between spaces",
    run=DATA,
    captures={"gradient": _plain},
    combine=sum_over_layers,
    components={"per_layer": ("layer",)},
)

SNIP = Proxy(
    name="snip",
    version=1,
    title="sum over layers of sum |W * dL/dW|",
    source="Lee et al., SNIP (ICLR 2019); Abdelfattah et al. (ICLR 2021)",
    run=DATA,
    captures={"gradient": _snip},
    combine=sum_over_layers,
    components={"per_layer": ("layer",)},
)

GRAD_NORM = Proxy(
    name="grad_norm",
    version=1,
    title="sum over layers of ||dL/dW||_2",
    source="Abdelfattah et al., Zero-cost proxies (ICLR 2021)",
    run=DATA,
    captures={"gradient": _grad_norm},
    combine=sum_over_layers,
    components={"per_layer": ("layer",)},
)

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


# -- gradients of units --------------------------------------------------------------------------------------


def _varying(std_OI: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The standard deviations of the weights that vary, and the mask of those (None: all of them).

    Where some are not finite none is left out, so that the sum shows it.
    """
    low, high = torch.stack(torch.aminmax(std_OI)).tolist()
    # The median is at most the maximum. It takes far longer than all the rest here and is seldom needed.
    if low > CONSTANT * high or not math.isfinite(high):
        return std_OI, None
    kept_OI = std_OI > CONSTANT * std_OI.median()
    return std_OI[kept_OI], kept_OI


def log_ratio(gradient: Gradient, std_OI: torch.Tensor) -> torch.Tensor:
    """log of the sum over weights of E|g| / `std_OI`; -inf if no weight varies."""
    std, kept_OI = _varying(std_OI)
    mean = gradient.abs_mean_OI if kept_OI is None else gradient.abs_mean_OI[kept_OI]
    return _total(mean / std).log()


def _zico(gradient: Gradient, options: Options):
    return {"log": log_ratio(gradient, gradient.std_OI if options.zico_variance == "signed" else gradient.abs_std_OI)}


def _combine_zico(places, _):
    per_layer = without_empty(numbers(places, "log"))
    return sum(per_layer), {"per_layer": per_layer}


def without_empty(logs: list[float]) -> list[float]:
    """Logs of sums over the weights that vary, 0 where there is none; undefined if there is none at all."""
    if all(log == -math.inf for log in logs):
        raise Undefined("no weight of the network has a gradient that varies between the gradient units")
    return [0.0 if log == -math.inf else log for log in logs]


def _gsnr(gradient: Gradient, _):
    return {"per_layer": _total(gradient.mean_OI.square() / gradient.std_OI.square().add_(XI))}


def _gradsign(gradient: Gradient, _):
    return {"per_layer": _total(gradient.sign_sum_OI.abs()), "weights": gradient.sign_sum_OI.numel()}


def _combine_gradsign(places, options: Options):
    per_layer = numbers(places, "per_layer")
    weights = sum(place["weights"] for place in places) if options.gradsign == "mean" else 1
    return sum(per_layer) / weights, {"per_layer": per_layer}


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


# -- Lambda of L-SWAG ----------------------------------------------------------------------------------------


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

PROXIES = (PLAIN, SNIP, GRAD_NORM, FISHER, ZICO, GSNR, GRADSIGN, LSWAG_LAMBDA)
