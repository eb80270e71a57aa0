"""jacov (Mellor et al., 2020)."""

from libranas.core.lazy import torch
from libranas.zero_cost.captures import InputGradient
from libranas.zero_cost.proxies.common import CONSTANT_ROW, K, correlation, only_value
from libranas.zero_cost.proxy import JACOBIAN, Proxy, Undefined


def _jacov(jacobian: InputGradient, _):
    correlation_BB = correlation(jacobian.gradient_BX)
    if not correlation_BB.isfinite().all():
        raise Undefined(CONSTANT_ROW)
    eigenvalues = torch.linalg.eigvalsh(correlation_BB) + K
    return {"value": -(eigenvalues.log() + eigenvalues.reciprocal()).sum()}


JACOV = Proxy(
    name="jacov",
    version=1,
    title="-sum of log(e + k) + 1/(e + k) over the eigenvalues e of the correlation of input gradients, k = 1e-5",
    source="Mellor et al., Neural architecture search without training (2020 version); Abdelfattah et al. (ICLR 2021)",
    run=JACOBIAN,
    captures={"input_gradient": _jacov},
    combine=only_value,
    undefined_for=CONSTANT_ROW,
)
