"""Condition number of the tangent kernel (TE-NAS, Chen et al., ICLR 2021)."""

import torch

from libranas.zero_cost.captures import TangentKernel
from libranas.zero_cost.options import Options
from libranas.zero_cost.proxy import JACOBIAN, Proxy, Undefined


def _condition(tangent: TangentKernel, _):
    kernel_BB = tangent.kernel_BB
    if not kernel_BB.isfinite().all():
        return {"value": float("nan")}
    eigenvalues = torch.linalg.eigvalsh(kernel_BB)
    low, high = eigenvalues[0].item(), eigenvalues[-1].item()
    if low <= high * len(kernel_BB) * torch.finfo(kernel_BB.dtype).eps:
        raise Undefined("the kernel is singular: the gradients of the images are linearly dependent")
    return {"value": high / low}


def _value(places, _: Options):
    return float(places[0]["value"]), {}


NTK_COND = Proxy(
    name="ntk_cond",
    version=1,
    title="condition number of the neural tangent kernel between images",
    source="Chen et al., TE-NAS (ICLR 2021), kappa; the gradient of the sum of the logits as in its released code",
    run=JACOBIAN,
    captures={"kernel": _condition},
    combine=_value,
    orientation=-1,
    undefined_for="the kernel is singular",
)
