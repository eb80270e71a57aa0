"""Options of the scoring engine."""

from dataclasses import dataclass
from types import UnionType
from typing import Literal, Union, get_args, get_origin, get_type_hints


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
    window : (low, high) or None
        Relative depths low <= depth < high outside of which no layer or activation is looked at; the work
        there is not done and the entries of the components are NaN.
    features : tuple of module names
        Outputs that count as primary blocks, for networks that the engine does not know.
    lambda_variance : ``abs`` or ``signed``
        Var|g| as Eq. 1 of L-SWAG prints it, or Var g as ZiCo's code and Theorem 1 have it.
    lambda_ddof : 0 or 1
        Delta degrees of freedom of that variance.
    lambda_exclude : tuple of ``first``, ``last`` and layer names
        Layers that do not count in Lambda (their components stay).
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
    zen_repeats : int
        Draws of weights and noise.
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
    window: tuple[float, float] | None = None
    features: tuple[str, ...] = ()
    lambda_variance: Literal["abs", "signed"] = "abs"
    lambda_ddof: Literal[0, 1] = 0
    lambda_exclude: tuple[str, ...] = ()
    lambda_pool: Literal["layer", "block"] = "layer"
    zico_variance: Literal["signed", "abs"] = "signed"
    gsnr_accumulate: bool = False
    gradsign: Literal["sum", "mean"] = "sum"
    fisher_axis: Literal["channel", "token"] = "channel"
    fisher_fan_in: bool = True
    psi_samples: int | None = None
    psi_merge: Literal["union", "sum", "log_sum"] = "union"
    lswag_form: Literal["product", "log", "per_layer"] = "product"
    reg_swap: tuple[float, float] | None = None
    tcet_saliency: Literal["snip", "synflow"] = "snip"
    ntk_images: int | None = None
    meco_modules: Literal["leaves", "all"] = "leaves"
    zen_repeats: int = 4
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
        for name in ("psi_samples", "ntk_images", "zen_repeats", "noise_batch"):
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
