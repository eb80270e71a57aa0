"""Data that a proxy gets at one place of a network.

Legend: O out, I in, B images, P positions, D channels, S samples, V units of an activation layer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from libranas.core.lazy import torch


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
    """Gradient of one weight over units; what no proxy of the call needs is None.

    ``mean_OI`` is the gradient of the mean loss of the whole batch for the need ``gradient``, else the mean over the
    units. ``sign_sum_OI`` is the sum over the units of sign(g).
    """

    name: str
    weight_OI: torch.Tensor
    units: int
    mean_OI: torch.Tensor | None = None
    abs_mean_OI: torch.Tensor | None = None
    std_OI: torch.Tensor | None = None  # ddof 0
    abs_std_OI: torch.Tensor | None = None  # of |g|, ddof 0
    sign_sum_OI: torch.Tensor | None = None
    #: On a GPU every layer adds whether some of its weights may not vary, which is read after the pass. None: at once.
    doubts: list[torch.Tensor] | None = None

    @cached_property
    def saliency_OI(self) -> torch.Tensor:
        """W * dL/dW."""
        return self.weight_OI * self.mean_OI


@dataclass(frozen=True)
class Signal:
    """Output of a layer times the gradient of the mean loss at it, for this part of the batch.

    Positions are pixels, or tokens if ``tokens`` is set. What ``reduce`` returns is added up over the parts of the
    batch, so means are taken over ``batch`` images, its whole size.
    """

    product_BPD: torch.Tensor
    fan_in: int
    batch: int
    tokens: bool


@dataclass
class Activation:
    """Signs at one place: ``bits_SV[s, v]`` is 1.0 where unit v fires (value > 0) on sample s, else 0.0.

    A unit is one position (token, pixel) of one channel.
    """

    name: str
    bits_SV: torch.Tensor

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
        """The distinct sample-wise patterns of the units, 64 samples packed in an integer; exact.

        Returns
        -------
        int64 tensor, shape (patterns,) for up to 64 samples, else (patterns, ceil(S / 64))
        """
        samples = samples or len(self.bits_SV)
        if samples not in self._patterns:
            words = self.words(samples)
            self._patterns[samples] = torch.unique(words) if words.dim() == 1 else torch.unique(words, dim=0)
        return self._patterns[samples]

    def words(self, samples: int | None = None) -> torch.Tensor:
        """The pattern of each unit, as :meth:`patterns`: shape (V,) or (V, ceil(S / 64))."""
        words_VW = pack_bits(self.bits_SV[:samples])
        return words_VW[:, 0] if words_VW.shape[1] == 1 else words_VW

    _patterns: dict = field(default_factory=dict)


#: Sums of that many zeros and ones are exact in float32.
EXACT = 2**24


def pack_bits(bits_SV: torch.Tensor) -> torch.Tensor:
    """Columns of a matrix of zeros and ones as 64-bit words: shape (V, ceil(S / 64)), int64."""
    # Sixteen bits at a time are one dot product with powers of two, which a float32 holds exactly.
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
class Representation:
    """The input of the last layer for each image of the readout (mean over positions), and their classes."""

    feature_BD: torch.Tensor
    targets_B: torch.Tensor


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
    same: torch.Tensor | bool


@dataclass(frozen=True)
class Maps:
    """Feature maps of one image, one a use of a module: rows are what comes first in an output (channels of a
    convolution, tokens of a transformer)."""

    maps: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Perturbation:
    """One draw of Zen: E_x ||f(x) - f(x + 0.01 eps)||_1 before the pooling, and the running variances of the
    batch norms after the two forwards (each the mean over channels)."""

    difference: float
    batch_norm_variances: tuple[float, ...]


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
