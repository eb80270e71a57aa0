"""Networks of the search space DARTS (Liu et al., ICLR 2019), and its supernet.

A stem, normal cells with reduction cells at a third and two thirds of the depth (each doubles the channels and halves
the resolution), the average over all pixels and a classifier. A cell brings its two inputs to its own width (ReLU, 1x1
convolution, normalisation); operations on them have stride 2 in a reduction cell. Initial weights are PyTorch's.
Differences from the authors' code: the drop-path rate does not grow from 0, and there is no auxiliary classifier.
"""

from collections.abc import Mapping, Sequence
from itertools import product

import torch
from torch import nn

from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.networks.initial_weights import initialise
from libranas.networks.operations import (
    CONVOLUTION_CFG,
    ConvolutionalNetwork,
    DropPath,
    FactorizedReduce,
    Zero,
    average_pool,
    conv_bn,
    convolutional_args,
    relu_conv_bn,
)
from libranas.spaces.cells.darts import EDGES, KINDS, NODES, DARTSSpace, cell_mask, reductions


def separable(channels: int, kernel: int, stride: int, dilation: int, affine: bool) -> nn.Sequential:
    """ReLU, depthwise and 1x1 convolution, batch normalisation."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    )


def operation(name: str, channels: int, stride: int, affine: bool) -> nn.Module:
    """One of the operations of :data:`libranas.spaces.cells.darts.OPERATIONS`, or ``none``."""
    if name == "none":
        return Zero(stride)
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine)
    if name.endswith("pool_3x3"):
        pool = average_pool(stride) if name.startswith("avg") else nn.MaxPool2d(3, stride, padding=1)
        return pool if affine else nn.Sequential(pool, nn.BatchNorm2d(channels, affine=False))
    kernel = int(name[-1])
    if name.startswith("dil_conv"):
        return separable(channels, kernel, stride, 2, affine)
    return nn.Sequential(separable(channels, kernel, stride, 1, affine), separable(channels, kernel, 1, 1, affine))


class Cell(nn.Module):
    """A cell with the operations that a mask leaves on its edges; those of an edge are added up.

    Parameters
    ----------
    mask : for each of :data:`libranas.spaces.cells.darts.EDGES` the names of its operations
    inputs : channels of the two inputs
    reduces : whether it halves the resolution
    larger : whether the first input has twice the resolution of the second
    """

    def __init__(
        self,
        mask: Sequence[Sequence[str]],
        inputs: tuple[int, int],
        channels: int,
        reduces: bool,
        larger: bool,
        affine: bool,
        drop_path_rate: float,
    ):
        super().__init__()
        self.first = FactorizedReduce(inputs[0], channels) if larger else relu_conv_bn(inputs[0], channels, 1)
        self.second = relu_conv_bn(inputs[1], channels, 1)
        self.edges = nn.ModuleDict(
            {
                f"{i}{j}": nn.ModuleDict(
                    {name: operation(name, channels, 1 + (reduces and i < 2), affine) for name in names}
                )
                for (i, j), names in zip(EDGES, mask, strict=True)
                if names
            }
        )
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, first_BCHW: torch.Tensor, second_BCHW: torch.Tensor) -> torch.Tensor:
        nodes = [self.first(first_BCHW), self.second(second_BCHW)]
        for j in NODES:
            total = None
            for i in range(j):
                for op in self.edges[f"{i}{j}"].values() if f"{i}{j}" in self.edges else ():
                    term = op(nodes[i])
                    if not isinstance(op, nn.Identity):
                        term = self.drop_path(term)
                    total = term if total is None else total + term
            nodes.append(total)
        return torch.cat(nodes[2:], dim=1)


class DARTSSupernet(ConvolutionalNetwork):
    """A network whose cells have on each edge the operations that a mask leaves. Its ``features``: stem and cells.

    A network with a part of the operations has a part of the parameters, under the same names: its weights are
    loaded from the whole supernet's ``state_dict`` with the other entries left out.

    Parameters
    ----------
    mask : ``normal`` and ``reduce``: for each of :data:`libranas.spaces.cells.darts.EDGES` the names of its operations
    width : channels of a node in the first cells
    layers : number of cells
    affine, large_stem : see :class:`libranas.spaces.cells.darts.DARTSSpace`
    drop_path_rate : probability that an operation, identities apart, is left out for an image in training
    """

    def __init__(
        self,
        mask: Mapping[str, Sequence[Sequence[str]]],
        width: int = 16,
        layers: int = 8,
        affine: bool = True,
        large_stem: bool = False,
        in_chans: int = 3,
        num_classes: int = 10,
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        for kind, node in product(KINDS, NODES):
            if not any(names for (_, j), names in zip(EDGES, mask[kind], strict=True) if j == node):
                raise LibranasError(
                    f"No operation is left at node {node} of the {kind} cell.", "Leave at least one, or none."
                )
        if large_stem:
            self.stem = nn.Sequential(*conv_bn(in_chans, width // 2, 3, 2), *relu_conv_bn(width // 2, width, 3, 2))
            self.reduction = relu_conv_bn(width, width, 3, 2)
            inputs = (width, width)
        else:
            self.stem = conv_bn(in_chans, 3 * width, 3)
            self.reduction = nn.Identity()
            inputs = (3 * width, 3 * width)
        cells, larger = [], large_stem
        for layer in range(layers):
            reduces = layer in reductions(layers)
            width *= 1 + reduces
            cells.append(Cell(mask[KINDS[reduces]], inputs, width, reduces, larger, affine, drop_path_rate))
            inputs, larger = (inputs[1], len(NODES) * width), reduces
        self.cells = nn.ModuleList(cells)
        self.add_classifier(in_chans, inputs[1], num_classes)
        stems = ("stem", "reduction") if large_stem else ("stem",)
        self.features = (*stems, *(f"cells.{i}" for i in range(layers)))
        initialise(self)

    def forward_features(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        before = self.stem(x_BCHW)
        now = self.reduction(before)
        for cell in self.cells:
            before, now = now, cell(before, now)
        return now


class DARTS(DARTSSupernet):
    """A network of the space: `normal` and `reduce` are eight pairs (operation, node that it reads), two for each node.

    Otherwise as :class:`DARTSSupernet`.
    """

    def __init__(
        self,
        normal: Sequence[tuple[str, int]],
        reduce: Sequence[tuple[str, int]],
        width: int = 36,
        layers: int = 20,
        **kwargs,
    ):
        mask = {"normal": cell_mask(normal), "reduce": cell_mask(reduce)}
        super().__init__(mask, width, layers, **kwargs)


#: The network class, and what timm is told of an untrained network.
NETWORK = DARTS
TIMM_CFG = CONVOLUTION_CFG


def model_args(space: DARTSSpace, arch: Arch) -> dict:
    """Arguments of :data:`NETWORK` for `arch`; JSON-ready."""
    cells = {kind: [list(pair) for pair in arch[kind]] for kind in KINDS}
    return cells | convolutional_args(space, "width", "layers", "affine", "large_stem")
