"""Operations and details that the convolutional search spaces share.

Activations are modules and never in place: proxies look at what goes into them.
"""

import torch
from torch import nn

from libranas.errors import LibranasError

__all__ = ["Zero", "average_pool", "convolution_cfg", "no_drop_path", "relu_conv_bn"]


def relu_conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """ReLU, convolution without bias ("same" padding), batch normalisation."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


def average_pool(stride: int = 1) -> nn.AvgPool2d:
    """3x3 average pooling over the pixels that exist."""
    return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)


class Zero(nn.Module):
    """The absent edge: the input times zero, so that what lies before it keeps a gradient, which is zero."""

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return x_BCHW * 0


def no_drop_path(rate: float, family: str) -> None:
    """Raise a LibranasError unless `rate` is 0."""
    if rate:
        raise LibranasError(
            f"Networks of the space {family} have no stochastic depth, but its rate is {rate:g}.",
            "Set the drop-path rate to 0.",
        )


def convolution_cfg(first_conv: str, classifier: str) -> dict:
    """timm's description of an untrained network for images of any size."""
    return {
        "url": "",
        "num_classes": 10,
        "input_size": (3, 32, 32),
        "pool_size": None,
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "first_conv": first_conv,
        "classifier": classifier,
    }
