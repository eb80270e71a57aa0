"""Networks of the search space NAS-Bench-101 (Ying et al., ICML 2019).

A stem, three stacks of equal cells with C, 2C and 4C channels, max pooling between two stacks, the average over all
pixels and a classifier. Batch normalisation has PyTorch's momentum and epsilon; the authors' TensorFlow code has 0.997
(0.003 in PyTorch's terms) and 1e-5.
"""

import torch
from torch import nn

from libranas.core.arch import Arch
from libranas.networks.initial_weights import Draw, initialise, kaiming_normal, usual
from libranas.networks.operations import (
    CONVOLUTION_CFG,
    ConvolutionalNetwork,
    conv_bn,
    convolutional_args,
    no_drop_path,
)
from libranas.spaces.cells.nasbench101 import NASBench101Space, vertex_channels


def conv_bn_relu(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(*conv_bn(inputs, outputs, kernel), nn.ReLU())


OPERATIONS = {
    "maxpool3x3": lambda channels: nn.MaxPool2d(3, stride=1, padding=1),
    "conv1x1-bn-relu": lambda channels: conv_bn_relu(channels, channels, 1),
    "conv3x3-bn-relu": lambda channels: conv_bn_relu(channels, channels, 3),
}


class Cell(nn.Module):
    """A cell with the genes `matrix` and `ops`.

    A vertex applies its operation to the sum of what its edges bring: the cell's input through a projection of its own
    (1x1 convolution, normalisation, ReLU), other vertices cut to the channels of this one. The vertices that feed the
    output are concatenated, and a projection of the input is added if an edge says so.
    """

    def __init__(self, matrix: list[list[int]], ops: list[str], inputs: int, outputs: int):
        super().__init__()
        last = len(ops) - 1
        self.channels = vertex_channels(matrix, inputs, outputs)
        self.sources = [[u for u in range(1, v) if matrix[u][v]] for v in range(last + 1)]
        self.projections = nn.ModuleDict(
            {str(v): conv_bn_relu(inputs, self.channels[v], 1) for v in range(1, last + 1) if matrix[0][v]}
        )
        self.operations = nn.ModuleDict({str(v): OPERATIONS[ops[v]](self.channels[v]) for v in range(1, last)})

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        values = [x_BCHW]
        for v, sources in enumerate(self.sources[1:], start=1):
            is_output = v == len(self.sources) - 1
            terms = [self.projections[str(v)](x_BCHW)] if str(v) in self.projections else []
            if is_output and sources:
                terms.append(torch.cat([values[u] for u in sources], dim=1))
            elif not is_output:
                terms += [values[u][:, : self.channels[v]] for u in sources]
            total = terms[0]
            for term in terms[1:]:
                total = total + term
            values.append(total if is_output else self.operations[str(v)](total))
        return values[-1]


class NASBench101(ConvolutionalNetwork):
    """A network of NAS-Bench-101, for images whose sides 4 divides. Its ``features``: stem and cells.

    Parameters
    ----------
    matrix, ops, width, cells
        See :class:`libranas.spaces.cells.nasbench101.NASBench101Space`.
    port_init : bool
        Weights of convolutions from N(0, 2 / (k^2 outputs)), of the classifier from N(0, 0.01^2), no biases, as in the
        PyTorch port nasbench_pytorch, whose networks NASLib scores. False: PyTorch's own.
    """

    def __init__(
        self,
        matrix: list[list[int]],
        ops: list[str],
        width: int = 128,
        cells: int = 3,
        port_init: bool = False,
        in_chans: int = 3,
        num_classes: int = 10,
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        no_drop_path(drop_path_rate, NASBench101Space.family)
        self.port_init = port_init
        self.stem = conv_bn_relu(in_chans, width, 3)
        blocks, inputs = [], width
        for outputs in (width, 2 * width, 4 * width):
            if blocks:
                blocks.append(nn.MaxPool2d(2))
            for _ in range(cells):
                blocks.append(Cell(matrix, ops, inputs, outputs))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.add_classifier(in_chans, 4 * width, num_classes)
        self.features = ("stem", *(f"blocks.{i}" for i, block in enumerate(blocks) if isinstance(block, Cell)))
        initialise(self, self._initial if port_init else usual)

    @staticmethod
    def _initial(module: nn.Module, key: str) -> Draw | None:
        if isinstance(module, nn.Linear):
            return Draw("normal", 0.01) if key == "weight" else Draw("constant", 0)
        return kaiming_normal(module, key)

    def reset_classifier(self, num_classes: int) -> None:
        super().reset_classifier(num_classes)
        if self.port_init:
            initialise(self.head, self._initial)


#: The network class, and what timm is told of an untrained network.
NETWORK = NASBench101
TIMM_CFG = CONVOLUTION_CFG


def model_args(space: NASBench101Space, arch: Arch) -> dict:
    """Arguments of :data:`NETWORK` for `arch`; JSON-ready."""
    genes = {"matrix": [list(row) for row in arch["matrix"]], "ops": list(arch["ops"])}
    return genes | convolutional_args(space, "width", "cells", "port_init")
