"""Networks of the search space NAS-Bench-201 (Dong and Yang, ICLR 2020).

A stem, three stages of equal cells with C, 2C and 4C channels, a residual block that halves the resolution between two
stages, and a classifier. Initial weights have PyTorch's distribution, as in the benchmark's own training.
"""

import torch
from torch import nn

from libranas.core.arch import Arch
from libranas.networks.initial_weights import initialise
from libranas.networks.operations import (
    CONVOLUTION_CFG,
    Cell,
    ConvolutionalNetwork,
    cell_operation,
    conv_bn,
    convolutional_args,
    no_drop_path,
    relu_conv_bn,
)
from libranas.spaces.cells.nasbench201 import NASBench201Space


class Reduction(nn.Module):
    """Residual block that doubles the channels and halves the resolution."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.main = nn.Sequential(relu_conv_bn(inputs, outputs, 3, 2), relu_conv_bn(outputs, outputs, 3))
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.main(x_BCHW) + self.shortcut(x_BCHW)


class NASBench201(ConvolutionalNetwork):
    """A network of NAS-Bench-201, for images whose sides 4 divides. Its ``features``: stem, cells and reductions.

    Parameters
    ----------
    edges : six names of operations, in the order of :data:`libranas.spaces.cells.base.EDGES`
    width, cells : channels of the first stage (C), cells of each stage
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
        self.stem = conv_bn(in_chans, width, 3)
        blocks = []
        for channels in (width, 2 * width, 4 * width):
            if blocks:
                blocks.append(Reduction(channels // 2, channels))
            blocks += [Cell(cell_operation(op, channels, channels) for op in edges) for _ in range(cells)]
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Sequential(nn.BatchNorm2d(4 * width), nn.ReLU())
        self.add_classifier(in_chans, 4 * width, num_classes)
        self.features = ("stem", *(f"blocks.{i}" for i in range(len(blocks))))
        initialise(self)

    def forward_features(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.last(self.blocks(self.stem(x_BCHW)))


#: The network class, and what timm is told of an untrained network.
NETWORK = NASBench201
TIMM_CFG = CONVOLUTION_CFG


def model_args(space: NASBench201Space, arch: Arch) -> dict:
    """Arguments of :data:`NETWORK` for `arch`; JSON-ready."""
    return {"edges": list(arch["edges"])} | convolutional_args(space, "width", "cells")
