"""What a proxy is: a frozen record that says what it needs, and a formula. A proxy never calls the model.

A proxy names a :class:`Pass` (which batch, which weights, which loss) and a need (what it wants to see at
each place of the network). The engine runs every pass once for all proxies that share it. At each place
the proxy's ``reduce`` turns what is captured there into a few numbers at once, so nothing large outlives
its layer; at the end ``combine`` makes the value and the components from those numbers.

Legend: U gradient units (samples or micro-batches), S samples, V units of an activation layer,
O x I a weight as a matrix (convolutions: I = channels x kernel), B images, P positions, D channels.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Literal

import torch

Need = Literal["network", "gradient", "abs_moments", "signed_moments", "activation", "saliency", "feature", "vjp"]


@dataclass(frozen=True)
class Pass:
    """One way of running the network. Proxies with equal passes share a single run.

    ``batch``: the calibration images, N(0, 1) noise, or one image of ones. ``weights``: the initial ones or
    their absolute values. ``loss``: mean cross-entropy, the sum of the logits, or none (forward only).
    ``precision``: what the pass is computed in; None takes the caller's.
    """

    name: str
    batch: Literal["none", "data", "noise", "ones"]
    weights: Literal["initial", "absolute"] = "initial"
    loss: Literal["cross_entropy", "logit_sum", "none"] = "none"
    precision: Literal["float32", "float64"] | None = None


ANALYTIC = Pass("analytic", "none")
DATA = Pass("data", "data", loss="cross_entropy")
NOISE = Pass("noise", "noise")
SYNAPTIC = Pass("synaptic", "ones", weights="absolute", loss="logit_sum", precision="float64")


@dataclass(frozen=True)
class Options:
    """Settings of a scoring call; recorded with the scores.

    Attributes
    ----------
    unit : ``auto``, ``sample`` or ``microbatch``
        What the variance of a gradient runs over. ``auto``: samples, but micro-batches where batch
        normalisation in training mode couples the samples.
    pieces : int
        Number of micro-batches (at least 2; below 4 the estimate is heavy-tailed).
    mode : ``auto``, ``train`` or ``eval``
        Mode of the network. ``auto``: ``train`` if it has batch normalisation, else ``eval``.
    precision : ``float32`` or ``float64``
        Of passes that do not fix their own.
    lambda_variance : ``abs`` or ``signed``
        Var|g| as Eq. 1 of L-SWAG prints it, or Var g as ZiCo's code and Theorem 1 have it.
    zico_variance : ``signed`` or ``abs``
        ZiCo's released code, or its paper.
    psi_samples : int or None
        Samples that make up an activation pattern; None: the whole batch.
    synflow_ln : ``keep`` or ``identity``
        What happens to LayerNorm in the synaptic pass (batch normalisation is always the identity there).
    noise_batch : int or None
        Images of noise for the AZ-NAS proxies; None: as many as in the batch.
    features : tuple of module names
        Outputs that count as primary blocks, for networks that the engine does not know.
    """

    unit: Literal["auto", "sample", "microbatch"] = "auto"
    pieces: int = 8
    mode: Literal["auto", "train", "eval"] = "auto"
    precision: Literal["float32", "float64"] = "float32"
    lambda_variance: Literal["abs", "signed"] = "abs"
    zico_variance: Literal["signed", "abs"] = "signed"
    psi_samples: int | None = None
    synflow_ln: Literal["keep", "identity"] = "keep"
    noise_batch: int | None = None
    features: tuple[str, ...] = ()

    def __post_init__(self):
        for f in fields(self):
            choices = getattr(f.type, "__args__", ())
            value = getattr(self, f.name)
            if choices and all(isinstance(c, str) for c in choices) and value not in choices:
                raise ValueError(f"option {f.name} must be one of {', '.join(choices)}, got {value!r}")
        if self.pieces < 2:
            raise ValueError(f"option pieces must be at least 2, got {self.pieces}")


# -- what is captured at a place -------------------------------------------------------------------------


@dataclass(frozen=True)
class Network:
    """The network as a whole: counts."""

    params: int
    macs: int


@dataclass
class Gradient:
    """Gradient of one weight, over units: everything that the gradient proxies reduce.

    ``mean_OI`` is the mean over the units, which for equal units is the gradient of the mean loss.
    ``*_m2_OI`` are sums of squared deviations from the mean; they exist only where a proxy needs them.
    """

    weight_OI: torch.Tensor
    units: int
    mean_OI: torch.Tensor
    m2_OI: torch.Tensor | None = None
    abs_mean_OI: torch.Tensor | None = None
    abs_m2_OI: torch.Tensor | None = None

    @cached_property
    def std_OI(self) -> torch.Tensor:
        """Standard deviation of g over the units, ddof 0."""
        return (self.m2_OI / self.units).sqrt()

    @cached_property
    def abs_std_OI(self) -> torch.Tensor:
        """Standard deviation of \\|g\\| over the units, ddof 0."""
        return (self.abs_m2_OI / self.units).sqrt()


@dataclass
class Activation:
    """Signs of one activation layer: ``bits_SV[s, v]`` is whether unit v fires (pre-activation > 0) on sample s.

    A unit is one position (token, pixel) of one channel.
    """

    bits_SV: torch.Tensor

    def patterns(self, samples: int | None = None) -> torch.Tensor:
        """The distinct sample-wise patterns of the layer's units, 64 samples packed in an integer; exact.

        Returns
        -------
        int64 tensor, shape (patterns,) for up to 64 samples, else (patterns, ceil(S / 64))
        """
        samples = samples or len(self.bits_SV)
        if samples not in self._patterns:
            words_VW = pack_bits(self.bits_SV[:samples])
            self._patterns[samples] = (
                torch.unique(words_VW[:, 0]) if words_VW.shape[1] == 1 else torch.unique(words_VW, dim=0)
            )
        return self._patterns[samples]

    _patterns: dict = field(default_factory=dict)


def pack_bits(bits_SV: torch.Tensor) -> torch.Tensor:
    """Columns of a boolean matrix as 64-bit words: shape (V, ceil(S / 64)), int64."""
    words = []
    for chunk in bits_SV.split(64):
        shift = torch.arange(len(chunk), device=bits_SV.device)
        words.append((chunk.long() << shift[:, None]).sum(0))
    return torch.stack(words, dim=1)


@dataclass(frozen=True)
class Saliency:
    """|W * dR/dW| of one weight in the synaptic pass."""

    saliency_OI: torch.Tensor


@dataclass(frozen=True)
class Feature:
    """Output of one primary block; positions are tokens or pixels."""

    x_BPD: torch.Tensor


@dataclass(frozen=True)
class Vjp:
    """One step of the backward signal: random signs at a block's output and what arrives at its input."""

    g_out_BPD: torch.Tensor
    g_in_BPD: torch.Tensor


# -- the record ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Proxy:
    """A zero-cost proxy: a frozen record and its formula.

    Attributes
    ----------
    name : str
    version : int
        Raised whenever the value for the same network and batch changes; cached scores are keyed by it.
    title, source : str
        In words, with the equation; paper.
    run : Pass
    need : Need or tuple of them given options
        What ``reduce`` wants to see; a callable when it depends on the options.
    reduce : callable (what is captured, Options) -> dict of numbers, tensors
        Called at each place, while the place's data are alive.
    combine : callable (list of what reduce returned, in execution order, Options) -> (value, components)
    components : component name to its axes (of :data:`libranas.scorecard.AXES`)
    orientation : +1 if higher predicts a better network, else -1
    parts : names of proxies whose values this one is made from; then ``combine`` gets their
        values and components, and nothing is captured for it.
    undefined_for : str
        Where it has no value; the reason recorded with the NaN.
    """

    name: str
    version: int
    title: str
    source: str
    run: Pass
    combine: Callable
    need: Need | Callable[[Options], Need] | None = None
    reduce: Callable | None = None
    components: dict[str, tuple[str, ...]] = field(default_factory=dict)
    orientation: int = 1
    parts: tuple[str, ...] = ()
    undefined_for: str = ""

    def needs(self, options: Options) -> Need | None:
        return self.need(options) if callable(self.need) else self.need
