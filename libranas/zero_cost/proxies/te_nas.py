"""TE-NAS (Chen et al., ICLR 2021): condition number of the tangent kernel, and number of linear regions."""

from libranas.core.lazy import torch
from libranas.zero_cost.captures import TangentKernel
from libranas.zero_cost.proxies.common import only_value
from libranas.zero_cost.proxies.patterns import NO_ACTIVATION, agreement
from libranas.zero_cost.proxy import DATA, JACOBIAN, Proxy, Undefined


def _condition(tangent: TangentKernel, _):
    kernel_BB = tangent.kernel_BB
    if not kernel_BB.isfinite().all():
        return {"value": float("nan")}
    eigenvalues = torch.linalg.eigvalsh(kernel_BB)
    low, high = eigenvalues[0].item(), eigenvalues[-1].item()
    if low <= high * len(kernel_BB) * torch.finfo(kernel_BB.dtype).eps:
        raise Undefined("the kernel is singular: the gradients of the images are linearly dependent")
    return {"value": high / low}


def _combine_regions(places, _):
    """Two samples lie in the same linear region if they agree on every unit."""
    kernel_SS = sum(place["kernel"] for place in places)
    same_SS = kernel_SS == sum(place["units"] for place in places)
    again_S = same_SS.tril(-1).any(1)  # an earlier sample lies in the same region
    return float(len(again_S) - again_S.sum().item()), {}


NTK_COND = Proxy(
    name="ntk_cond",
    version=1,
    title="condition number of the neural tangent kernel between images",
    source="Chen et al., TE-NAS (ICLR 2021), kappa; the gradient of the sum of the logits as in its released code",
    run=JACOBIAN,
    captures={"kernel": _condition},
    combine=only_value,
    orientation=-1,
    undefined_for="the kernel is singular",
)
LINEAR_REGIONS = Proxy(
    name="linear_regions",
    version=1,
    title="number of distinct activation codes of samples, over all units of all layers",
    source="Chen et al., TE-NAS (ICLR 2021), R; on the batch at its own size, where all codes may differ",
    run=DATA,
    captures={"activation": agreement},
    combine=_combine_regions,
    undefined_for=NO_ACTIVATION,
)
