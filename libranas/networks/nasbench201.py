"""Networks of the search space NAS-Bench-201 (Dong and Yang, ICLR 2020).

A stem, three stages of equal cells with C, 2C and 4C channels, a residual block that halves the resolution between two
stages, and a classifier. Initial weights have PyTorch's distribution, as in the benchmark's own training. Registered
with timm as ``libranas_nasbench201``.
"""

import torch
from torch import nn

from libranas.core.arch import Arch
from libranas.networks.initial_weights import initialise
from libranas.networks.operations import Cell, Zero, average_pool, convolution_cfg, no_drop_path, relu_conv_bn
from libranas.spaces.cells.nasbench201 import NASBench201Space

__all__ = ["NASBench201", "model_args"]

OPERATIONS = {
    "none": lambda channels: Zero(),
    "skip_connect": lambda channels: nn.Identity(),
    "nor_conv_1x1": lambda channels: relu_conv_bn(channels, channels, 1),
    "nor_conv_3x3": lambda channels: relu_conv_bn(channels, channels, 3),
    "avg_pool_3x3": lambda channels: average_pool(),
}


class Reduction(nn.Module):
    """Residual block that doubles the channels and halves the resolution."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.main = nn.Sequential(relu_conv_bn(inputs, outputs, 3, 2), relu_conv_bn(outputs, outputs, 3))
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.main(x_BCHW) + self.shortcut(x_BCHW)


class NASBench201(nn.Module):
    """A network of NAS-Bench-201.

    Parameters
    ----------
    edges : list of six names of operations
        In the order of :data:`libranas.spaces.cells.base.EDGES`.
    width : int
        Channels of the first stage (C).
    cells : int
        Of each stage (N).
    drop_path_rate : float
        Must be 0.

    Attributes
    ----------
    features : tuple of module names
        The primary blocks in execution order: stem, cells and reductions.
    """

    def __init__(
        self,
        edges: list[str],
        width: int = 16,
        cells: int = 5,
        in_chans: int = 3,
        num_classes: int = 10,
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        no_drop_path(drop_path_rate, NASBench201Space.family)
        self.in_chans, self.num_features = in_chans, 4 * width
        self.stem = nn.Sequential(nn.Conv2d(in_chans, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        blocks = []
        for channels in (width, 2 * width, 4 * width):
            if blocks:
                blocks.append(Reduction(channels // 2, channels))
            blocks += [Cell(OPERATIONS[op](channels) for op in edges) for _ in range(cells)]
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Sequential(nn.BatchNorm2d(4 * width), nn.ReLU())
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.reset_classifier(num_classes)
        self.features = ("stem", *(f"blocks.{i}" for i in range(len(blocks))))
        initialise(self)

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """A new last layer; 0 classes: none."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.last(self.blocks(self.stem(x_BCHW)))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Logits (B, classes) of images (B, channels, H, W); 4 divides H and W."""
        return self.head(self.pool(self.forward_features(x_BCHW)))


#: The network class, and what timm is told of an untrained network.
NETWORK = NASBench201
TIMM_CFG = convolution_cfg("stem.0", "head")


def model_args(space: NASBench201Space, arch: Arch) -> dict:
    """Arguments of :data:`NETWORK` for `arch`; JSON-ready."""
    return {
        "edges": list(arch["edges"]),
        "width": space.width,
        "cells": space.cells,
        "in_chans": space.channels,
        "num_classes": space.classes,
    }
