"""Proxies made from the gradient of the summed logits, at the pixels or at the weights.

Legend: B images, X pixels of an image, K images of one class.
"""

import torch

from libranas.proxies.base import JACOBIAN, InputGradient, Options, Proxy, TangentKernel, Undefined
from libranas.proxies.common import correlation

#: What keeps logarithm and reciprocal finite in jacov and epe_nas.
K = 1e-5
#: Up to so many classes epe_nas adds up the classes; above, it compares them.
FEW_CLASSES = 100

CONSTANT_ROW = "the gradient of the logits is the same at all pixels of an image, so its correlations are undefined"


def _jacov(jacobian: InputGradient, _):
    correlation_BB = correlation(jacobian.gradient_BX)
    if not correlation_BB.isfinite().all():
        raise Undefined(CONSTANT_ROW)
    eigenvalues = torch.linalg.eigvalsh(correlation_BB) + K
    return {"value": -(eigenvalues.log() + eigenvalues.reciprocal()).sum()}


def _epe_nas(jacobian: InputGradient, _):
    """Sum over classes of |s|, s = sum log(|correlation| + k) within a class. Of more than 100 classes, means
    instead of sums and their differences between classes, as far as classes have two images."""
    many = jacobian.classes > FEW_CLASSES
    present, counts = jacobian.targets_B.unique(return_counts=True)
    if (counts < 2).all():
        raise Undefined("no class has two images in the batch; use a class-balanced one")
    scores = []
    for target in present[counts > 1] if many else present:
        correlation_KK = correlation(jacobian.gradient_BX[jacobian.targets_B == target])
        total = (correlation_KK.abs() + K).log().sum()
        scores.append(total / len(correlation_KK) if many else total)
    if many and len(scores) < 2:
        raise Undefined("only one class has two images in the batch: there is nothing to compare it with")
    scores = torch.stack(scores)
    if scores.isnan().any():
        raise Undefined(CONSTANT_ROW)
    value = (scores[:, None] - scores).abs().sum() / len(scores) if many else scores.abs().sum()
    return {"value": value}


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


JACOV = Proxy(
    name="jacov",
    version=1,
    title="-sum of log(e + k) + 1/(e + k) over the eigenvalues e of the correlation of input gradients, k = 1e-5",
    source="Mellor et al., Neural architecture search without training (2020 version); Abdelfattah et al. (ICLR 2021)",
    run=JACOBIAN,
    captures={"input_gradient": _jacov},
    combine=_value,
    undefined_for=CONSTANT_ROW,
)

EPE_NAS = Proxy(
    name="epe_nas",
    version=1,
    title="sum over classes of |sum of log(|r| + 1e-5)|, r the correlations of input gradients within the class",
    source="Lopes et al., EPE-NAS (ICANN 2021)",
    run=JACOBIAN,
    captures={"input_gradient": _epe_nas},
    combine=_value,
    undefined_for="no class has two images in the batch",
)

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

PROXIES = (JACOV, EPE_NAS, NTK_COND)
