"""Networks of the search spaces of TransNAS-Bench-101 (Duan et al., CVPR 2021), micro and macro, for all seven tasks.

A stem, modules of two blocks each (cells or residual blocks), and what the task asks for: pooling and a linear layer,
the same after nine pieces of an image went through the network (jigsaw), or a decoder (segmentation, normals,
autoencoder).
"""

import torch
from torch import nn

from libranas.core.arch import Arch
from libranas.networks.initial_weights import initialise, kaiming_normal, usual
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
from libranas.spaces.cells.base import EDGES
from libranas.spaces.cells.transnas101 import (
    BLOCKS,
    IMAGE_TASKS,
    PIECES,
    Layer,
    TransNASMacroSpace,
    TransNASMicroSpace,
    decoder,
    halves,
    widens,
)


def cell(edges: list[str], inputs: int, outputs: int, stride: int, affine: bool) -> Cell:
    """A cell whose operations at the input, and no others, have the stride and change the width."""
    shapes = ((outputs, 1) if source else (inputs, stride) for source, _ in EDGES)
    return Cell(cell_operation(op, i, outputs, s, affine) for op, (i, s) in zip(edges, shapes, strict=True))


class Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut, which is a 1x1 convolution where width or resolution change."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.main = nn.Sequential(relu_conv_bn(inputs, outputs, 3, stride), relu_conv_bn(outputs, outputs, 3))
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = conv_bn(inputs, outputs, 1, stride)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.main(x_BCHW) + self.shortcut(x_BCHW)


def decoder_layer(layer: Layer, tanh: bool) -> nn.Sequential:
    """The modules of a layer of a decoder; `tanh` for the last one."""
    if layer.up:
        convolution = nn.ConvTranspose2d(layer.inputs, layer.outputs, 3, 2, padding=1, output_padding=1)
    else:
        convolution = nn.Conv2d(layer.inputs, layer.outputs, 3, padding=1)
    if layer.last:
        return nn.Sequential(convolution, nn.Tanh() if tanh else nn.Identity())
    return nn.Sequential(convolution, nn.BatchNorm2d(layer.outputs), nn.LeakyReLU(0.2))


class TransNAS101(ConvolutionalNetwork):
    """A network of TransNAS-Bench-101. Its ``features``: stem, then cells or residual blocks.

    Parameters
    ----------
    modules : the codes of the modules; see :mod:`libranas.spaces.cells.transnas101`
    edges : six names of operations, in the order of :data:`libranas.spaces.cells.base.EDGES`; None: residual blocks
    task, width, published_init : see :class:`libranas.spaces.cells.transnas101.TransNASMicroSpace`
    naslib : stem and reductions of NASLib; see :data:`libranas.spaces.cells.transnas101.VARIANTS`
    num_classes : numbers that the network puts out, for each pixel where the output is an image
    """

    def __init__(
        self,
        modules: list[int],
        edges: list[str] | None = None,
        task: str = "class_object",
        width: int = 64,
        naslib: bool = False,
        published_init: bool = False,
        in_chans: int = 3,
        num_classes: int = 100,
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        no_drop_path(drop_path_rate, TransNASMicroSpace.family)
        self.task = task
        if naslib:
            self.stem = conv_bn(in_chans, width, 3)
        else:
            self.stem = nn.Sequential(*conv_bn(in_chans, width // 2, 3, 2), relu_conv_bn(width // 2, width, 3, 2))
        blocks, channels = [], width
        for code in modules:
            for i in range(BLOCKS):
                inputs, stride = channels, 2 if halves(code) and i == 0 else 1
                channels *= 2 if widens(code) and i == 0 else 1
                if edges is None:
                    blocks.append(Residual(inputs, channels, stride))
                else:
                    blocks.append(cell(edges, inputs, channels, stride, affine=not naslib))
        self.blocks = nn.Sequential(*blocks)
        self.features = ("stem", *(f"blocks.{i}" for i in range(len(blocks))))
        if task in IMAGE_TASKS:
            self.in_chans, self.num_features, self.num_classes = in_chans, channels, num_classes
            layers = decoder(task, channels, num_classes, 2 + sum(map(halves, modules)))
            self.head = nn.Sequential(*(decoder_layer(layer, tanh=task != "segmentsemantic") for layer in layers))
        else:
            self.add_classifier(in_chans, channels * (PIECES if task == "jigsaw" else 1), num_classes)
        published = set(self.modules()).difference(self.head.modules()) if published_init else ()
        initialise(self, lambda module, key: (kaiming_normal if module in published else usual)(module, key))

    def reset_classifier(self, num_classes: int) -> None:
        """Make a new last layer; 0 classes: none. Not for tasks whose output is an image."""
        if self.task in IMAGE_TASKS:
            raise ValueError(f"the task {self.task} has no classifier")
        super().reset_classifier(num_classes)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Logits (B, outputs), or an image (B, outputs, H, W), of images (B, channels, H, W); for ``jigsaw`` of pieces
        (B, 9, channels, H, W), each of which goes through the network by itself."""
        if self.task == "jigsaw":
            features = torch.cat([self.forward_features(piece) for piece in x_BCHW.unbind(1)], dim=1)
        else:
            features = self.forward_features(x_BCHW)
        return self.head(features if self.task in IMAGE_TASKS else self.pool(features))


#: The network class, and what timm is told of an untrained network.
NETWORK = TransNAS101
TIMM_CFG = CONVOLUTION_CFG


def model_args(space: TransNASMicroSpace | TransNASMacroSpace, arch: Arch) -> dict:
    """Arguments of :data:`NETWORK` for `arch`; JSON-ready."""
    if isinstance(space, TransNASMicroSpace):
        own = {"modules": list(space.modules), "edges": list(arch["edges"]), "naslib": space.naslib}
    else:
        own = {"modules": list(arch["modules"])}
    return own | convolutional_args(space, "task", "width", "published_init") | {"num_classes": space.outputs}
