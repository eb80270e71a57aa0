"""AZ-NAS (Lee and Ham, CVPR 2024): expressivity and trainability of the primary blocks on N(0, 1) noise.

The primary blocks of a vision transformer are its residual stream after every attention and after every
MLP. Written from the paper; no code of the authors was used.
"""

import math

import torch

from libranas.proxies.base import NOISE, Feature, Proxy, Vjp

NO_BLOCKS = "the primary blocks of this network are unknown; name them with the option `features`"


def _entropy(feature: Feature, _):
    """Entropy (nats) of the normalised eigenvalues of the channel covariance over images and positions."""
    x = feature.x_BPD.flatten(0, 1).double()
    x = x - x.mean(0)
    covariance = x.T @ x / len(x)
    if not covariance.isfinite().all():
        return math.nan
    eigenvalues = torch.linalg.eigvalsh(covariance).clamp(min=0)
    p = eigenvalues / eigenvalues.sum()
    return (-p * torch.log(p + 1e-8)).sum().item()


def _isometry(vjp: Vjp, _):
    """2 - s - 1 / (s + 1e-6), s the largest singular value of g_in^T g_out / (images x positions)."""
    g_out, g_in = vjp.g_out_BPD.flatten(0, 1), vjp.g_in_BPD.flatten(0, 1)
    jacobian = (g_in.T @ g_out / len(g_out)).double()
    if not jacobian.isfinite().all():
        return math.nan
    s = torch.linalg.matrix_norm(jacobian, ord=2).item()
    return 2 - s - 1 / (s + 1e-6)


AZ_EXPRESSIVITY = Proxy(
    name="az_expressivity",
    version=1,
    title="sum over the primary blocks of the entropy of the feature covariance spectrum",
    source="Lee and Ham, AZ-NAS (CVPR 2024), Eq. 3",
    run=NOISE,
    need="feature",
    reduce=_entropy,
    combine=lambda places, _: (sum(places), {"per_feature": places}),
    components={"per_feature": ("feature",)},
    undefined_for=NO_BLOCKS,
)

AZ_TRAINABILITY = Proxy(
    name="az_trainability",
    version=1,
    title="mean over the primary blocks of 2 - s - 1/s, s the spectral norm of the block's mean Jacobian",
    source="Lee and Ham, AZ-NAS (CVPR 2024), Eq. 8",
    run=NOISE,
    need="vjp",
    reduce=_isometry,
    # The first block has no predecessor; its entry stays NaN so that the axis matches the others.
    combine=lambda places, _: (sum(places) / len(places), {"per_feature": [float("nan"), *places]}),
    components={"per_feature": ("feature",)},
    undefined_for=NO_BLOCKS,
)

PROXIES = (AZ_EXPRESSIVITY, AZ_TRAINABILITY)
