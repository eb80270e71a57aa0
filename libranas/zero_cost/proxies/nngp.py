"""NNGP: how well a linear readout of the untrained network's last features tells the classes of other images."""

from libranas.core.lazy import torch
from libranas.zero_cost.captures import Representation
from libranas.zero_cost.proxies.common import only_value
from libranas.zero_cost.proxy import READOUT, Proxy, Undefined

#: Ridges that are tried, as multiples of the kernel's mean eigenvalue.
RIDGES = tuple(10.0 ** (k / 2) for k in range(-10, 3))
FEW_IMAGES = "no class has two images; give more"


def _nngp(representation: Representation, _):
    """1 - sum of squared errors / sum of squares of the classes (one-hot less their mean): each image is predicted by a
    ridge regression, with an intercept, on the others; the ridge is the best one."""
    present, class_B = representation.targets_B.unique(return_inverse=True)
    images = len(class_B)
    if len(present) == images:
        raise Undefined(FEW_IMAGES)
    feature_BD = representation.feature_BD.double()
    feature_BD = feature_BD - feature_BD.mean(0)
    target_BK = torch.nn.functional.one_hot(class_B, len(present)).double()
    target_BK = target_BK - target_BK.mean(0)
    kernel_BB = feature_BD @ feature_BD.T
    finite = kernel_BB.isfinite().all()
    eigenvalue_B, vector_BB = torch.linalg.eigh(kernel_BB.nan_to_num(0.0, 0.0, 0.0))
    eigenvalue_B, rotated_BK = eigenvalue_B.clamp(min=0), vector_BB.T @ target_BK
    part_BB, mean, errors = vector_BB.square(), eigenvalue_B.mean(), []
    for ridge in RIDGES:
        share_B = eigenvalue_B / (eigenvalue_B + ridge * mean)
        # What a linear fit misses of an image that it does not see: its residual / (1 - its leverage).
        leverage_B = part_BB @ share_B + 1 / images
        residual_BK = vector_BB @ ((1 - share_B)[:, None] * rotated_BK)
        errors.append((residual_BK / (1 - leverage_B)[:, None]).square().sum())
    value = 1 - torch.stack(errors).min() / target_BK.square().sum()
    return {"value": value.masked_fill(~finite, float("nan"))}


NNGP = Proxy(
    name="nngp",
    version=1,
    title="leave-one-out R^2 of a kernel ridge regression of the classes on the input of the last layer",
    source="after Park et al., Towards NNGP-guided neural architecture search (2020): one network, and R^2",
    run=READOUT,
    captures={"representation": _nngp},
    combine=only_value,
    undefined_for=FEW_IMAGES,
)
