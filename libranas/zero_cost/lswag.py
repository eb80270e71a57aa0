"""The definition of L-SWAG = Lambda x Psi (Casarin et al., CVPR 2025, Eq. 1), for any layer window and every option.

Computed from the components on a score card or in a score file, without a network.
Legend: L weight layers, M activation layers. "..." are leading axes (architectures, seeds), none on a score card.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from libranas.core.errors import LibranasError
from libranas.core.scorecard import Axis, ScoreCard
from libranas.zero_cost.options import Options

NAMES = ("lswag_lambda", "lswag_psi", "lswag")
#: Components of lswag_lambda and lswag_psi that the definition reads.
COMPONENTS = ("lambda", "log_sigma", "words", "union")
#: Options that say how the components are combined. All others act before, on the components themselves.
OPTIONS = ("window", "lambda_exclude", "lambda_pool", "psi_merge", "lswag_form")
PSI_RANGES = ("window", "from_first", "all")
NOT_POSITIVE = "Lambda is not positive, so the product with Psi would fall as Psi grows"


def lambda_of(
    components: Mapping[str, np.ndarray], names: Sequence[str], options: Options, inside_L: np.ndarray | None = None
) -> np.ndarray:
    """Compute Lambda.

    Parameters
    ----------
    components : ``lambda``, the log of a layer's sum of 1 / std|g|, and ``log_sigma``, each of shape (..., L)
        NaN where a layer was not looked at; ``lambda`` 0 and ``log_sigma`` NaN where no weight's gradient varies.
    names : the L layers
    inside_L : bool, which layers count; default all

    Returns
    -------
    array (...); NaN where no layer counts
    """
    counted_L = counted(names, options) & (True if inside_L is None else inside_L)
    log_L = np.where(counted_L, components["lambda"], np.nan)
    if options.lambda_pool == "block":
        log_L = _pooled(np.where(np.isnan(components["log_sigma"]), np.nan, log_L), names)
    known_L = ~np.isnan(log_L)
    return np.where(known_L.any(-1), _sum(np.where(known_L, log_L, 0.0)), np.nan)


def psi_of(components: Mapping[str, np.ndarray], options: Options, inside_M: np.ndarray | None = None) -> np.ndarray:
    """Compute Psi.

    Parameters
    ----------
    components : ``words`` (..., M) and ``union`` (..., M, M)
        Distinct patterns of each activation layer, and of layers i..j together. NaN where a layer was not looked at.
    inside_M : bool, which activation layers count, one run of them; default all

    Returns
    -------
    array (...); NaN where no activation layer counts
    """
    words = components["words"]
    looked_at_M = np.isfinite(words).any(tuple(range(words.ndim - 1)))
    (m,) = np.nonzero(looked_at_M if inside_M is None else looked_at_M & inside_M)
    if not len(m):
        return np.full(words.shape[:-1], np.nan)
    if options.psi_merge == "union":
        return components["union"][..., m[0], m[-1]]
    return _sum(words[..., m] if options.psi_merge == "sum" else np.log(words[..., m]))


def product(lambda_: np.ndarray, psi: np.ndarray, layers: np.ndarray, options: Options) -> np.ndarray:
    """Combine Lambda and Psi of networks with `layers` layers; NaN where the product is undefined (NOT_POSITIVE)."""
    if options.lswag_form == "log":
        return lambda_ + np.log(psi)
    positive = lambda_ > 0
    if options.lswag_form == "per_layer":
        lambda_ = lambda_ / np.where(positive, layers, 1)
    return np.where(positive, lambda_ * psi, np.nan)


def layers_looked_at(components: Mapping[str, np.ndarray], inside_L: np.ndarray | bool = True) -> np.ndarray:
    """Count the layers by which the form ``per_layer`` divides Lambda: array (...)."""
    return (np.isfinite(components["lambda"]) & inside_L).sum(-1)


def counted(names: Sequence[str], options: Options) -> np.ndarray:
    """Tell which layers the option ``lambda_exclude`` leaves in: bool, shape (L,)."""
    # With a window the network's first or last layer may not be among the names.
    low, high = options.window or (0.0, 1.0)
    ends = {"first": names[0] if low <= 0 else None, "last": names[-1] if high >= 1 else None} if names else {}
    excluded = {ends.get(name, name) for name in options.lambda_exclude}
    return np.array([name not in excluded for name in names], bool)


def _pooled(log_L: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Sum the layers of each block before the logarithm: logs of blocks, NaN where a block has no layer."""
    blocks: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        blocks.setdefault(_block(name), []).append(place)
    log_L = np.where(np.isnan(log_L), -np.inf, log_L)
    pooled = [np.logaddexp.reduce(log_L[..., places], axis=-1) for places in blocks.values()]
    pooled = np.stack(pooled, axis=-1) if pooled else log_L
    return np.where(np.isneginf(pooled), np.nan, pooled)


def _block(layer: str) -> str:
    """Name the block of a layer: its name up to the first number in it, or the layer alone."""
    parts = layer.split(".")
    number = next((i for i, part in enumerate(parts) if part.isdigit()), len(parts))
    return ".".join(parts[: number + 1])


def _sum(terms: np.ndarray) -> np.ndarray:
    """Add up the last axis from left to right: one network rounds as many do (np.sum depends on the memory layout)."""
    total = np.zeros(terms.shape[:-1])
    for place in range(terms.shape[-1]):
        total = total + terms[..., place]
    return total


def depth_bin(depth: Sequence[float], bins: int) -> np.ndarray:
    """Bin 0 .. bins-1 of relative depths l / L in [0, 1), equal to ``bins * l // L`` in integers."""
    return np.floor(np.asarray(depth, "f8") * bins + 1e-9).astype(np.int64)  # 1e-9: 100 * (29 / 100) < 29


@dataclass(frozen=True)
class LayerWindow:
    """Depth bins `lo` to `hi`, both included, of `bins` equal ones."""

    lo: int
    hi: int
    bins: int

    def mask(self, depth: Sequence[float]) -> np.ndarray:
        """Return whether each place at relative `depth` lies in the window: bool, same length."""
        bin_ = depth_bin(depth, self.bins)
        return (self.lo <= bin_) & (bin_ <= self.hi)

    def psi_mask(self, depth: Sequence[float], psi_range: str) -> tuple[np.ndarray, bool]:
        """Choose the activation layers that Psi counts.

        Parameters
        ----------
        psi_range : ``window`` (those in the window), ``from_first`` (from the first to the end of the window, as Eq. 7
            is printed) or ``all``

        Returns
        -------
        bool, same length as `depth`; and whether ``from_first`` takes the place of a ``window`` without any
        """
        if psi_range not in PSI_RANGES:
            raise LibranasError(f"Unknown range {psi_range!r} for Psi.", f"Known: {', '.join(PSI_RANGES)}.")
        inside, up_to_end = self.mask(depth), depth_bin(depth, self.bins) <= self.hi
        instead = psi_range == "window" and not inside.any()
        chosen = {"window": up_to_end if instead else inside, "from_first": up_to_end}
        return chosen.get(psi_range, np.ones(len(depth), bool)), instead and bool(up_to_end.any())


class Whole(NamedTuple):
    """Lambda or Psi of a whole network: its value (...,), its components, and the places along them."""

    value: np.ndarray
    components: Mapping[str, np.ndarray]
    axis: Axis


def in_window(
    lambda_: Whole, psi: Whole, window: LayerWindow, psi_range: str, options: Options
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], bool]:
    """Restrict L-SWAG to a layer window. A part that failed for the whole network keeps its value.

    Parameters
    ----------
    psi_range : see :meth:`LayerWindow.psi_mask`
    options : those that the components were made with

    Returns
    -------
    Lambda, Psi and the product, each (...,), NaN where undefined; and the second result of :meth:`LayerWindow.psi_mask`
    """
    inside_L = window.mask(lambda_.axis.depth)
    inside_M, from_first = window.psi_mask(psi.axis.depth, psi_range)
    lambda_in = lambda_of(lambda_.components, lambda_.axis.names, options, inside_L)
    lambda_in = np.where(np.isfinite(lambda_.value), lambda_in, lambda_.value)
    psi_in = np.where(np.isfinite(psi.value), psi_of(psi.components, options, inside_M), psi.value)
    both = product(lambda_in, psi_in, layers_looked_at(lambda_.components, inside_L), options)
    return (lambda_in, psi_in, both), from_first


def card_in_window(card: ScoreCard, window: LayerWindow, psi_range: str, options: Options) -> dict[str, float]:
    """Return proxy to value of a score card, with L-SWAG restricted to a layer window."""
    values = {name: score.value for name, score in card.scores.items()}
    if "lswag_lambda" in values and "lswag_psi" in values:
        wholes = _of_card(card, "lswag_lambda", "layer"), _of_card(card, "lswag_psi", "activation")
        found, _ = in_window(*wholes, window, psi_range, options)
        values |= dict(zip(NAMES, map(float, found), strict=True))
    return values


def _of_card(card: ScoreCard, name: str, axis: str) -> Whole:
    score = card.scores[name]
    if score.components:
        return Whole(np.asarray(score.value), score.components, card.axes[axis])
    nothing = dict.fromkeys(("lambda", "log_sigma", "words"), np.empty(0)) | {"union": np.empty((0, 0))}
    return Whole(np.asarray(score.value), nothing, Axis((), ()))  # it failed before it had components


def options_of(conditions: Mapping) -> Options:
    """Return the options that matter here, from the conditions in the provenance of a score file."""
    stored = conditions.get("options", {})  # a file that is older than an option was made with its default
    return Options(**{name: stored[name] for name in OPTIONS if name in stored})
