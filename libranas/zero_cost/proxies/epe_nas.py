"""EPE-NAS (Lopes et al., 2021)."""

from libranas.core.lazy import torch
from libranas.zero_cost.captures import InputGradient
from libranas.zero_cost.proxies.common import CONSTANT_ROW, K, correlation, only_value
from libranas.zero_cost.proxy import JACOBIAN, Proxy, Undefined

#: Up to so many classes epe_nas adds up the classes; above, it compares them.
FEW_CLASSES = 100


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


EPE_NAS = Proxy(
    name="epe_nas",
    version=1,
    title="sum over classes of |sum of log(|r| + 1e-5)|, r the correlations of input gradients within the class",
    source="Lopes et al., EPE-NAS (ICANN 2021)",
    run=JACOBIAN,
    captures={"input_gradient": _epe_nas},
    combine=only_value,
    undefined_for="no class has two images in the batch",
)
