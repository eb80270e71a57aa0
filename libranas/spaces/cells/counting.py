"""Sizes of the layers that convolutional search spaces are made of. Layers without weights count nothing."""

from typing import NamedTuple

__all__ = ["Size", "conv", "conv_norm", "linear", "norm"]


class Size(NamedTuple):
    """Trainable parameters, and multiply-accumulates of matrix products and convolutions for one image.

    Sizes add up; ``size * n`` is the size of `n` such layers.
    """

    params: int = 0
    macs: int = 0

    def __add__(self, other: "Size") -> "Size":
        return Size(self.params + other.params, self.macs + other.macs)

    def __mul__(self, times: int) -> "Size":
        return Size(self.params * times, self.macs * times)


def conv(inputs: int, outputs: int, kernel: int, pixels: int, bias: bool = False) -> Size:
    """Return the size of a square convolution with `pixels` output pixels."""
    weights = inputs * outputs * kernel**2
    return Size(weights + bias * outputs, weights * pixels)


def norm(channels: int) -> Size:
    """Return the size of a batch normalisation with scale and shift."""
    return Size(2 * channels)


def conv_norm(inputs: int, outputs: int, kernel: int, pixels: int) -> Size:
    """Return the size of a convolution with batch normalisation."""
    return conv(inputs, outputs, kernel, pixels) + norm(outputs)


def linear(inputs: int, outputs: int) -> Size:
    """Return the size of a linear layer with bias."""
    return Size(inputs * outputs + outputs, inputs * outputs)
