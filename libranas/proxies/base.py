"""What a proxy is: a frozen record that says what it captures, and formulas. A proxy never calls the model.

A proxy names what it wants to see at each place of the network (a :data:`NEED`); every need belongs to one
:class:`Pass`, and the engine runs each pass once for all proxies that share it. At each place the proxy's
``reduce`` turns what is captured there into a few numbers at once, so nothing large outlives its layer; at
the end ``combine`` makes the value and the components from those numbers.

Legend: U gradient units (samples or micro-batches), S samples, V units of an activation layer,
O x I a weight as a matrix (convolutions: I = channels x kernel), B images, P positions, D channels,
X pixels of an image.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import UnionType
from typing import Literal, Union, get_args, get_origin, get_type_hints

import torch


@dataclass(frozen=True)
class Pass:
    """One way of running the network. Proxies with equal passes share a single run.

    ``batch``: the calibration images, N(0, 1) noise, or one image of ones. ``weights``: the initial ones,
    their absolute values, or drawn anew from N(0, 1). ``loss``: mean cross-entropy, the sum of the logits,
    or none (forward only). ``precision``: what the pass is computed in; None takes the caller's.
    """

    name: str
    batch: Literal["none", "data", "noise", "ones"]
    weights: Literal["initial", "absolute", "gaussian"] = "initial"
    loss: Literal["cross_entropy", "logit_sum", "none"] = "none"
    precision: Literal["float32", "float64"] | None = None


ANALYTIC = Pass("analytic", "none")
DATA = Pass("data", "data", loss="cross_entropy")
#: The images one by one: in evaluation mode batch normalisation does not couple them either. A network whose data pass
#: is such a run anyway (no batch normalisation) shows it there, at no cost.
EVALUATION = Pass("evaluation", "data", loss="cross_entropy")
JACOBIAN = Pass("jacobian", "data", loss="logit_sum")
HESSIAN = Pass("hessian", "data", loss="cross_entropy")
NOISE = Pass("noise", "noise")
GAUSSIAN = Pass("gaussian", "noise", weights="gaussian")
SYNAPTIC = Pass("synaptic", "ones", weights="absolute", loss="logit_sum", precision="float64")
#: The synaptic pass with every LayerNorm replaced by the identity.
SYNAPTIC_BARE = Pass("synaptic_bare", "ones", weights="absolute", loss="logit_sum", precision="float64")

#: What can be captured -> the pass that shows it, and the axis of its places (None: one place, the network).
NEEDS: dict[str, tuple[Pass, str | None]] = {
    "network": (ANALYTIC, None),  # Network
    "weight": (ANALYTIC, "layer"),  # Weight
    "gradient": (DATA, "layer"),  # Gradient: mean_OI
    "abs_spread": (DATA, "layer"),  # Gradient: abs_mean_OI, abs_std_OI
    "spread": (DATA, "layer"),  # Gradient: these, mean_OI and std_OI
    "signs": (DATA, "layer"),  # Gradient: sign_sum_OI
    "accumulated": (DATA, "layer"),  # Gradient: mean_OI and std_OI of running sums over the units
    "signal": (DATA, "layer"),  # Signal
    "output": (DATA, "layer"),  # Activation: signs of the layer's output, network in evaluation mode
    "activation": (DATA, "activation"),  # Activation
    "sample_spread": (EVALUATION, "layer"),  # Gradient over samples: mean_OI, std_OI and those of |g|
    "sample_activation": (EVALUATION, "activation"),  # Activation
    "input_gradient": (JACOBIAN, None),  # InputGradient
    "kernel": (JACOBIAN, None),  # TangentKernel
    "curvature": (HESSIAN, "layer"),  # Curvature
    "feature": (NOISE, "feature"),  # Feature
    "vjp": (NOISE, "feature"),  # Vjp; none at the first feature
    "maps": (NOISE, None),  # Maps
    "perturbation": (GAUSSIAN, None),  # Perturbation
    "saliency": (SYNAPTIC, "layer"),  # Saliency
    "bare_saliency": (SYNAPTIC_BARE, "layer"),  # Saliency
}
NEED = str


@dataclass(frozen=True)
class Options:
    """Settings of a scoring call; recorded with the scores.

    Attributes
    ----------
    unit : ``auto``, ``sample`` or ``microbatch``
        What statistics of a gradient run over. ``auto``: samples, but micro-batches where batch
        normalisation in training mode couples the samples.
    pieces : int
        Number of micro-batches.
    few_units : bool
        Allow fewer than 4 units; with 2 the standard deviation of a layer's Lambda over draws is 0.6.
    mode : ``auto``, ``train`` or ``eval``
        Mode of the network. ``auto``: ``train`` if it has batch normalisation, else ``eval``.
    precision : ``float32`` or ``float64``
        Of passes that do not fix their own.
    labels : ``true`` or ``random``
        Classes of the images, or uniform random ones (an ablation).
    window : (low, high) or None
        Relative depths low <= depth < high outside of which no layer or activation is looked at; the work
        there is not done and the entries of the components are NaN.
    features : tuple of module names
        Outputs that count as primary blocks, for networks that the engine does not know.
    lambda_variance : ``abs`` or ``signed``
        Var|g| as Eq. 1 of L-SWAG prints it, or Var g as ZiCo's code and Theorem 1 have it.
    lambda_ddof : 0 or 1
        Delta degrees of freedom of that variance.
    lambda_floor : ``drop``, ``epsilon``, ``clip`` or ``trim``
        Weights that hardly vary: left out if sigma is at most 1e-12 of the layer's median; 1e-8 added to
        every sigma; sigma clipped below at its 0.1 % quantile; weights below that quantile left out.
    lambda_exclude : tuple of ``first``, ``last`` and layer names
        Layers that do not count in Lambda (their components stay).
    lambda_split_qkv : bool
        Query, key and value thirds of a layer called qkv count as three layers.
    lambda_pool : ``layer`` or ``block``
        Sum over layers of the log, or over blocks of the log of the sum over all weights of the block.
    zico_variance : ``signed`` or ``abs``
        ZiCo's released code, or its paper.
    gsnr_accumulate : bool
        Let gradients accumulate over the units, as the released code does by mistake.
    gradsign : ``sum`` or ``mean``
        Over the weights. The paper sums; one of the released scripts takes the mean.
    fisher_axis : ``channel`` or ``token``
        Of outputs (images, tokens, channels): sum over tokens and keep channels, or the released code's
        axes, which are the other way round.
    fisher_fan_in : bool
        Weight each channel by its fan-in, as NASLib does.
    psi_samples : int or None
        Samples that make up an activation pattern; None: the whole batch.
    psi_units : ``all``, ``cls``, ``mean`` or int
        Which positions are units: all, the first token, one unit a channel (the sign of the mean), or that
        many random ones.
    psi_merge : ``union``, ``sum`` or ``log_sum``
        Distinct patterns over all layers; the sum of each layer's, or of its logarithm.
    lswag_form : ``product``, ``log`` or ``per_layer``
        Lambda x Psi; Lambda + log Psi; Lambda / number of layers x Psi.
    reg_swap : (mu, sigma) or None
        Target and width of reg-SWAP in thousands of parameters; sigma is not squared (as published).
    tcet_saliency : ``snip`` or ``synflow``
    ntk_images : int or None
        The first that many images make the tangent kernel of ntk_cond; None: the whole batch. Through batch
        normalisation in training mode the kernel costs a backward an image.
    meco_modules : ``leaves`` or ``all``
        Feature maps of layers, norms and activations; or of every module, containers too, as released.
    meco_channels : int or None
        MeCo_opt: that many random channels, scaled up; None: all.
    zen_repeats : int
        Draws of weights and noise.
    zen_ln_compensation : bool
        Add the log of the standard deviation at each LayerNorm's input, as batch norms have it.
    synflow_ln : ``keep`` or ``identity``
        What happens to LayerNorm in synflow (batch normalisation is always the identity there).
    noise_batch : int or None
        Images of noise for the AZ-NAS proxies and zen; None: as many as in the batch.
    """

    unit: Literal["auto", "sample", "microbatch"] = "auto"
    pieces: int = 8
    few_units: bool = False
    mode: Literal["auto", "train", "eval"] = "auto"
    precision: Literal["float32", "float64"] = "float32"
    labels: Literal["true", "random"] = "true"
    window: tuple[float, float] | None = None
    features: tuple[str, ...] = ()
    lambda_variance: Literal["abs", "signed"] = "abs"
    lambda_ddof: Literal[0, 1] = 0
    lambda_floor: Literal["drop", "epsilon", "clip", "trim"] = "drop"
    lambda_exclude: tuple[str, ...] = ()
    lambda_split_qkv: bool = False
    lambda_pool: Literal["layer", "block"] = "layer"
    zico_variance: Literal["signed", "abs"] = "signed"
    gsnr_accumulate: bool = False
    gradsign: Literal["sum", "mean"] = "sum"
    fisher_axis: Literal["channel", "token"] = "channel"
    fisher_fan_in: bool = True
    psi_samples: int | None = None
    psi_units: Literal["all", "cls", "mean"] | int = "all"
    psi_merge: Literal["union", "sum", "log_sum"] = "union"
    lswag_form: Literal["product", "log", "per_layer"] = "product"
    reg_swap: tuple[float, float] | None = None
    tcet_saliency: Literal["snip", "synflow"] = "snip"
    ntk_images: int | None = None
    meco_modules: Literal["leaves", "all"] = "leaves"
    meco_channels: int | None = None
    zen_repeats: int = 4
    zen_ln_compensation: bool = False
    synflow_ln: Literal["keep", "identity"] = "keep"
    noise_batch: int | None = None

    def __post_init__(self):
        for name, kind in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if isinstance(value, list):  # as JSON and YAML have it
                value = tuple(value)
                object.__setattr__(self, name, value)
            if get_origin(kind) is Literal and value not in get_args(kind):
                raise ValueError(f"option {name} must be one of {', '.join(map(str, get_args(kind)))}, got {value!r}")
            if not _fits(value, kind):
                kind = getattr(kind, "__name__", kind) if kind in (bool, int) else str(kind).replace("typing.", "")
                raise ValueError(f"option {name} must be of type {kind}, got {value!r}")
        least = 2 if self.few_units else 4
        if self.pieces < least:
            raise ValueError(
                f"option pieces must be at least {least}, got {self.pieces}"
                + ("" if self.few_units else ": with fewer the estimate is heavy-tailed (few_units=True allows it)")
            )
        if self.window is not None and not 0 <= self.window[0] < self.window[1]:
            raise ValueError(f"option window must be (low, high) with 0 <= low < high, got {self.window!r}")
        for name in ("psi_samples", "psi_units", "ntk_images", "meco_channels", "zen_repeats", "noise_batch"):
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"option {name} must be at least 1, got {value}")


def _fits(value, kind) -> bool:
    """Whether `value` is of the annotated type `kind`; an int is a float too, but never a bool."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return value in inner
    if origin in (Union, UnionType):
        return any(_fits(value, k) for k in inner)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        inner = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        return len(inner) == len(value) and all(map(_fits, value, inner))
    if kind in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if kind is float else kind)


# -- what is captured at a place -------------------------------------------------------------------------


@dataclass(frozen=True)
class Network:
    """The network as a whole: trainable parameters, and multiply-accumulates of one image."""

    params: int
    macs: int


@dataclass(frozen=True)
class Weight:
    """One weight, before any run."""

    weight_OI: torch.Tensor


@dataclass
class Gradient:
    """Gradient of one weight over units: everything that the gradient proxies reduce.

    ``mean_OI`` is the mean over the units, which for equal units is the gradient of the mean loss (for the
    need ``gradient`` it is that of the whole batch, also where units are coupled). ``sign_sum_OI`` is the
    sum over the units of sign(g). What no proxy of the call needs is None.
    """

    name: str
    weight_OI: torch.Tensor
    units: int
    mean_OI: torch.Tensor | None = None
    abs_mean_OI: torch.Tensor | None = None
    std_OI: torch.Tensor | None = None  # ddof 0
    abs_std_OI: torch.Tensor | None = None  # of |g|, ddof 0
    sign_sum_OI: torch.Tensor | None = None

    @cached_property
    def saliency_OI(self) -> torch.Tensor:
        """W * dL/dW."""
        return self.weight_OI * self.mean_OI


@dataclass(frozen=True)
class Signal:
    """Output of a layer times the gradient of the mean loss at it: ``product_BPD``, for this part of the batch.

    Outputs (images, channels, pixels) come with positions P = pixels; outputs (images, tokens, channels)
    with P = tokens and ``tokens`` set; (images, channels) with one position. What ``reduce`` returns is
    added up over the parts of the batch, so means are taken over ``batch`` images, its whole size.
    """

    product_BPD: torch.Tensor
    fan_in: int
    batch: int
    tokens: bool


@dataclass
class Activation:
    """Signs at one place: ``bits_SV[s, v]`` is 1.0 where unit v fires (value > 0) on sample s, else 0.0.

    A unit is one position (token, pixel) of one channel. ``chosen_SV`` are those units that patterns are
    made of (option ``psi_units``).
    """

    name: str
    bits_SV: torch.Tensor
    chosen_SV: torch.Tensor

    @cached_property
    def agreement_SS(self) -> torch.Tensor:
        """Number of units on which two samples agree: V less the Hamming distance; exact, float64."""
        size = len(self.bits_SV)
        both_SS = torch.zeros(size, size, dtype=torch.float64, device=self.bits_SV.device)
        for bits in self.bits_SV.split(EXACT, dim=1):
            both_SS += (bits @ bits.T).double()
        fires_S = both_SS.diagonal()
        return self.bits_SV.shape[1] - fires_S[:, None] - fires_S + 2 * both_SS

    def patterns(self, samples: int | None = None) -> torch.Tensor:
        """The distinct sample-wise patterns of the chosen units, 64 samples packed in an integer; exact.

        Returns
        -------
        int64 tensor, shape (patterns,) for up to 64 samples, else (patterns, ceil(S / 64))
        """
        samples = samples or len(self.chosen_SV)
        if samples not in self._patterns:
            words_VW = pack_bits(self.chosen_SV[:samples])
            one = words_VW.shape[1] == 1
            self._patterns[samples] = torch.unique(words_VW[:, 0]) if one else torch.unique(words_VW, dim=0)
        return self._patterns[samples]

    _patterns: dict = field(default_factory=dict)


#: Sums of that many zeros and ones are exact in float32.
EXACT = 2**24


def pack_bits(bits_SV: torch.Tensor) -> torch.Tensor:
    """Columns of a matrix of zeros and ones as 64-bit words: shape (V, ceil(S / 64)), int64.

    Sixteen bits at a time are one dot product with powers of two, which a float32 holds exactly.
    """
    bits_SV = bits_SV.to(torch.float32)
    words = []
    for chunk in bits_SV.split(64):
        word = torch.zeros(chunk.shape[1], dtype=torch.int64, device=chunk.device)
        for k, part in enumerate(chunk.split(16)):
            powers = 2.0 ** torch.arange(len(part), device=part.device, dtype=torch.float32)
            word |= (powers @ part).to(torch.int64) << (16 * k)
        words.append(word)
    return torch.stack(words, dim=1)


@dataclass(frozen=True)
class InputGradient:
    """Gradient of the sum of an image's logits at its pixels, and the classes that the images have."""

    gradient_BX: torch.Tensor
    targets_B: torch.Tensor
    classes: int


@dataclass(frozen=True)
class TangentKernel:
    """Inner products between images of the gradient of the sum of their logits at all weights, float64."""

    kernel_BB: torch.Tensor


@dataclass(frozen=True)
class Curvature:
    """A weight and its part of the Hessian of the mean loss times the gradient (over all layers' weights)."""

    weight_OI: torch.Tensor
    product_OI: torch.Tensor


@dataclass(frozen=True)
class Feature:
    """Covariance of the channels at one primary block over images and positions, float64."""

    covariance_DD: torch.Tensor


@dataclass(frozen=True)
class Vjp:
    """One step of the backward signal, float64: ``g_in^T g_out / (images x positions)``, where g_out are
    random signs at a block's output and g_in what arrives at its input. ``same``: the two are
    equal, or cannot be paired; such a block does not count."""

    jacobian_DD: torch.Tensor
    same: bool


@dataclass(frozen=True)
class Maps:
    """Feature maps of one image, one a use of a module: rows are what comes first in an output (channels of a
    convolution, tokens of a transformer)."""

    maps: dict[str, torch.Tensor]
    options_seed: int


@dataclass(frozen=True)
class Perturbation:
    """One draw of Zen: E_x ||f(x) - f(x + 0.01 eps)||_1 before the pooling, the running variances of the
    batch norms after the two forwards (each the mean over channels), and the standard deviations that enter
    the layer norms (each the mean over tokens)."""

    difference: float
    batch_norm_variances: tuple[float, ...]
    layer_norm_stds: tuple[float, ...]


@dataclass(frozen=True)
class Saliency:
    """One weight in a synaptic pass and dR/dW. ``kind``: whether it is a linear layer of an attention, another
    linear layer or a convolution."""

    weight_OI: torch.Tensor
    gradient_OI: torch.Tensor
    kind: Literal["attention", "linear", "convolution"]

    @cached_property
    def saliency_OI(self) -> torch.Tensor:
        """|W * dR/dW|."""
        return (self.weight_OI * self.gradient_OI).abs()


# -- the record ------------------------------------------------------------------------------------------

Captures = Mapping[NEED, Callable]


@dataclass(frozen=True)
class Proxy:
    """A zero-cost proxy: a frozen record and its formulas.

    Attributes
    ----------
    name : str
    version : int
        Raised whenever the value for the same network and batch changes; cached scores are keyed by it.
    title, source : str
        In words, with the equation; paper.
    run : Pass
        The (most expensive) pass that it needs; its cost is the proxy's.
    captures : need -> reduce, or a callable (Options) -> such a mapping
        ``reduce`` (what is captured, Options) -> dict of numbers or small tensors is called at each place,
        while the place's data are alive. The dicts of one place are joined.
    combine : callable (list of these dicts in execution order, Options) -> (value, components)
        With ``parts``: (their :class:`~libranas.scorecard.ProxyScore` by name, Options) instead.
    components : component name to its axes (of :data:`libranas.scorecard.AXES`)
    orientation : +1 if higher predicts a better network, else -1
    parts : names of proxies whose values this one is made from; nothing is captured for it.
    undefined_for : str
        Where it has no value; the reason recorded with the NaN.
    """

    name: str
    version: int
    title: str
    source: str
    run: Pass
    combine: Callable
    captures: Captures | Callable[[Options], Captures] = field(default_factory=dict)
    components: dict[str, tuple[str, ...]] = field(default_factory=dict)
    orientation: int = 1
    parts: tuple[str, ...] = ()
    undefined_for: str = ""

    def captured(self, options: Options) -> Captures:
        return self.captures(options) if callable(self.captures) else self.captures

    def charged(self, options: Options) -> Pass:
        """The pass whose cost is the proxy's: ``run``, unless the options have it run in another one."""
        passes = [NEEDS[need][0] for need in self.captured(options)]
        return self.run if self.parts or self.run in passes else passes[0]


class Undefined(Exception):
    """Raised by a reduce or combine where the proxy has no value for this network: the reason."""
