"""AZ-NAS (Lee and Ham, CVPR 2024): expressivity, progressivity and trainability of the primary blocks on N(0, 1) noise.

Written from the paper; no code of the authors was used.
"""

import math
from itertools import pairwise

from libranas.core.lazy import torch
from libranas.zero_cost.captures import Feature, Vjp
from libranas.zero_cost.proxy import NOISE, Proxy, Undefined
from libranas.zero_cost.spectra import ENTROPY, LARGEST

NO_BLOCKS = "the primary blocks of this network are unknown; name them with the option `features`"


def _entropy(feature: Feature, options):
    """Entropy (nats) of the normalised eigenvalues of the channel covariance over images and positions."""
    return {"entropy": ENTROPY.at(feature.covariance_DD, options)}


def _combine_expressivity(places, _):
    entropies = ENTROPY.numbers([place["entropy"] for place in places])
    return sum(entropies), {"per_feature": entropies}


def _combine_progressivity(parts, _):
    entropies = parts["az_expressivity"].components["per_feature"].tolist()
    if len(entropies) < 2:
        raise Undefined("the network has a single primary block, so there is no step between two")
    steps = [after - before for before, after in pairwise(entropies)]
    # The first block has no predecessor; its entry stays NaN so that the axis matches the others.
    return min(steps), {"per_feature": [math.nan, *steps]}


def _step(vjp: Vjp, options):
    """The largest eigenvalue of the smaller Gram matrix of the block's mean Jacobian: as accurate as a singular value,
    and faster."""
    jacobian = vjp.jacobian_DD
    gram = jacobian @ jacobian.T if jacobian.shape[0] <= jacobian.shape[1] else jacobian.T @ jacobian
    return {"largest": LARGEST.at(gram, options), "same": torch.as_tensor(vjp.same, device=gram.device)}


def _isometry(largest: float, same: bool) -> float:
    """2 - s - 1 / (s + 1e-6), s the largest singular value of the block's mean Jacobian."""
    s = math.nan if same or math.isnan(largest) else math.sqrt(max(largest, 0.0))
    return 2 - s - 1 / (s + 1e-6)


def _combine_trainability(places, _):
    largest = LARGEST.numbers([place["largest"] for place in places])
    isometries = [_isometry(value, place["same"]) for value, place in zip(largest, places, strict=True)]
    counted = [value for value, place in zip(isometries, places, strict=True) if not place["same"]]
    if not counted:
        raise Undefined("every block hands the backward signal on as it is")
    return sum(counted) / len(counted), {"per_feature": [math.nan, *isometries]}


AZ_EXPRESSIVITY = Proxy(
    name="az_expressivity",
    version=2,
    title="sum over the primary blocks of the entropy of the feature covariance spectrum",
    source="Lee and Ham, AZ-NAS (CVPR 2024), Eq. 3",
    run=NOISE,
    captures={"feature": _entropy},
    combine=_combine_expressivity,
    components={"per_feature": ("feature",)},
    undefined_for=NO_BLOCKS,
)

AZ_PROGRESSIVITY = Proxy(
    name="az_progressivity",
    version=2,
    title="smallest increase of that entropy from one primary block to the next",
    source="Lee and Ham, AZ-NAS (CVPR 2024); its released code leaves it out for vision transformers",
    run=NOISE,
    parts=("az_expressivity",),
    combine=_combine_progressivity,
    components={"per_feature": ("feature",)},
    undefined_for=NO_BLOCKS,
)

AZ_TRAINABILITY = Proxy(
    name="az_trainability",
    version=3,
    title="mean over the primary blocks of 2 - s - 1/s, s the spectral norm of the block's mean Jacobian",
    source="Lee and Ham, AZ-NAS (CVPR 2024), Eq. 8; blocks that are the identity or pool tokens do not count",
    run=NOISE,
    captures={"vjp": _step},
    combine=_combine_trainability,
    components={"per_feature": ("feature",)},
    undefined_for=NO_BLOCKS,
)
