"""Proxies made from the gradient of the cross-entropy on real images, one forward and backward for all.

Layers are the weights of convolutions and linear layers (head included, biases and norms not), as in
every reference implementation. Variances run over units (samples or micro-batches), ddof 0.
"""

import torch

from libranas.proxies.base import DATA, Gradient, Options, Proxy

#: Weights with a standard deviation up to this fraction of the layer's median count as constant
#: (dead units have exactly zero) and are left out of sums of 1/std.
CONSTANT = 1e-12


def _sum_over_layers(name: str = "per_layer"):
    def combine(places, _):
        return sum(place[name] for place in places), {name: [place[name] for place in places]}

    return combine


def _snip(gradient: Gradient, _):
    return {"per_layer": (gradient.weight_OI * gradient.mean_OI).abs().sum(dtype=torch.float64).item()}


def _grad_norm(gradient: Gradient, _):
    return {"per_layer": torch.linalg.vector_norm(gradient.mean_OI, dtype=torch.float64).item()}


def _inverse_std_sum(numerator_OI, std_OI: torch.Tensor) -> tuple[float, torch.Tensor]:
    """log sum numerator / std over the weights that vary, and the mask of those; 0.0 if none does."""
    kept_OI = std_OI > CONSTANT * std_OI.median()
    kept = std_OI[kept_OI].double()
    if not len(kept):
        return 0.0, kept_OI
    ratio = (numerator_OI[kept_OI].double() if torch.is_tensor(numerator_OI) else numerator_OI) / kept
    return ratio.sum().log().item(), kept_OI


def _zico(gradient: Gradient, options: Options):
    std_OI = gradient.std_OI if options.zico_variance == "signed" else gradient.abs_std_OI
    return {"per_layer": _inverse_std_sum(gradient.abs_mean_OI, std_OI)[0]}


def _lambda(gradient: Gradient, options: Options):
    std_OI = gradient.std_OI if options.lambda_variance == "signed" else gradient.abs_std_OI
    value, kept_OI = _inverse_std_sum(1.0, std_OI)
    kept = std_OI[kept_OI].double()
    return {
        "lambda": value,
        "log_sigma": kept.log().mean().item() if len(kept) else float("nan"),
        "dropped": float(std_OI.numel() - len(kept)),
    }


def _combine_lambda(places, _):
    components = {key: [place[key] for place in places] for key in places[0]}
    return sum(components["lambda"]), components


SNIP = Proxy(
    name="snip",
    version=1,
    title="sum over layers of sum |W * dL/dW|",
    source="Lee et al., SNIP (ICLR 2019); Abdelfattah et al. (ICLR 2021)",
    run=DATA,
    need="gradient",
    reduce=_snip,
    combine=_sum_over_layers(),
    components={"per_layer": ("layer",)},
)

GRAD_NORM = Proxy(
    name="grad_norm",
    version=1,
    title="sum over layers of ||dL/dW||_2",
    source="Abdelfattah et al., Zero-cost proxies (ICLR 2021)",
    run=DATA,
    need="gradient",
    reduce=_grad_norm,
    combine=_sum_over_layers(),
    components={"per_layer": ("layer",)},
)

ZICO = Proxy(
    name="zico",
    version=1,
    title="sum over layers of log sum E|g| / std(g)",
    source="Li et al., ZiCo (ICLR 2023), Eq. 14; signed std as in the released code unless zico_variance='abs'",
    run=DATA,
    need=lambda options: "signed_moments" if options.zico_variance == "signed" else "abs_moments",
    reduce=_zico,
    combine=_sum_over_layers(),
    components={"per_layer": ("layer",)},
)

LSWAG_LAMBDA = Proxy(
    name="lswag_lambda",
    version=1,
    title="trainability: sum over layers of log sum 1 / std|g|",
    source="Casarin et al., L-SWAG (CVPR 2025), Eq. 1, Lambda; all layers (windows are applied to the components)",
    run=DATA,
    need=lambda options: "signed_moments" if options.lambda_variance == "signed" else "abs_moments",
    reduce=_lambda,
    combine=_combine_lambda,
    components={"lambda": ("layer",), "log_sigma": ("layer",), "dropped": ("layer",)},
)

PROXIES = (SNIP, GRAD_NORM, ZICO, LSWAG_LAMBDA)
