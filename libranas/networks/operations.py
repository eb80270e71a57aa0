"""Operations and details that networks share.

Activations are modules and never in place: proxies look at what goes into them.
"""

from collections.abc import Iterable
from functools import reduce
from operator import add

import torch
from torch import nn

from libranas.core.errors import LibranasError
from libranas.spaces.cells.base import EDGES, ConvolutionalSpace


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution without bias ("same" padding), batch normalisation."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


def relu_conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.ReLU(), *conv_bn(inputs, outputs, kernel, stride))


def average_pool(stride: int = 1) -> nn.AvgPool2d:
    """3x3 average pooling over the pixels that exist."""
    return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)


class Zero(nn.Module):
    """The absent edge: the input times zero, so that what lies before it keeps a gradient, which is zero.

    With `stride` only every so many rows and columns; with `outputs` so many channels.
    """

    def __init__(self, stride: int = 1, outputs: int | None = None):
        super().__init__()
        self.stride, self.outputs = stride, outputs

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        if self.outputs is not None:
            x_BCHW = x_BCHW[:, :1].expand(-1, self.outputs, -1, -1)
        return x_BCHW[:, :, :: self.stride, :: self.stride] * 0


class FactorizedReduce(nn.Module):
    """The identity that halves the resolution: ReLU, two 1x1 convolutions with stride 2 that give half of the channels
    each, the second one of the image moved by a row and a column (zeros at its end), and batch normalisation."""

    def __init__(self, inputs: int, outputs: int, affine: bool = True):
        super().__init__()
        self.relu = nn.ReLU()
        self.pad = nn.ZeroPad2d((0, 1, 0, 1))
        self.even = nn.Conv2d(inputs, outputs // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(inputs, outputs - outputs // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(outputs, affine=affine)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        x_BCHW = self.relu(x_BCHW)
        return self.norm(torch.cat([self.even(x_BCHW), self.odd(self.pad(x_BCHW)[:, :, 1:, 1:])], dim=1))


def cell_operation(name: str, inputs: int, outputs: int, stride: int = 1, affine: bool = True) -> nn.Module:
    """An operation of a :class:`Cell`; `affine`: whether an identity that reduces has scale and shift."""
    if name == "none":
        return Zero(stride, None if inputs == outputs else outputs)
    if name == "skip_connect":
        same = stride == 1 and inputs == outputs
        return nn.Identity() if same else FactorizedReduce(inputs, outputs, affine)
    if name == "avg_pool_3x3":
        return average_pool(stride)
    return relu_conv_bn(inputs, outputs, {"nor_conv_1x1": 1, "nor_conv_3x3": 3}[name], stride)


class Cell(nn.Module):
    """A cell of four nodes: node j is the sum over its predecessors i of operation (i, j); node 3 is the output.

    `operations` are in the order of :data:`libranas.spaces.cells.base.EDGES`.
    """

    def __init__(self, operations: Iterable[nn.Module]):
        super().__init__()
        self.operations = nn.ModuleDict({f"{i}{j}": op for (i, j), op in zip(EDGES, operations, strict=True)})

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        nodes = [x_BCHW]
        for j in range(1, 4):
            nodes.append(reduce(add, (self.operations[f"{i}{j}"](nodes[i]) for i in range(j))))
        return nodes[-1]


class DropPath(nn.Module):
    """Stochastic depth: in training, drop what an image has on this path with probability `drop_prob`.

    What is kept is scaled, so that its expectation stays.
    """

    def __init__(self, drop_prob: float):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.drop_prob:
            return x
        kept = 1 - self.drop_prob
        mask = x.new_empty(x.shape[0], *[1] * (x.dim() - 1)).bernoulli_(kept)
        return x * (mask.div_(kept) if kept else mask)


def no_drop_path(rate: float, family: str) -> None:
    """Raise a LibranasError unless `rate` is 0."""
    if rate:
        raise LibranasError(
            f"Networks of the space {family} have no stochastic depth, but its rate is {rate:g}.",
            "Set `drop_path` of the recipe to 0 (`--set drop_path=0`).",
        )


class ConvolutionalNetwork(nn.Module):
    """A classifier with the interface of a timm model: features, the average over all pixels, a linear layer.

    A subclass builds ``stem`` and ``blocks`` (or has its own :meth:`forward_features`), then calls
    :meth:`add_classifier`.

    Attributes
    ----------
    features : tuple of module names
        The primary blocks in execution order.
    """

    features: tuple[str, ...]

    def add_classifier(self, in_chans: int, num_features: int, num_classes: int) -> None:
        self.in_chans, self.num_features = in_chans, num_features
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.reset_classifier(num_classes)

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """Make a new last layer; 0 classes: none."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.blocks(self.stem(x_BCHW))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, classes) of images (B, channels, H, W)."""
        return self.head(self.pool(self.forward_features(x_BCHW)))


def convolutional_args(space: ConvolutionalSpace, *names: str) -> dict:
    """Return the arguments of a network that are fields of its space."""
    return {name: getattr(space, name) for name in names} | {"in_chans": space.channels, "num_classes": space.classes}


#: timm's description of an untrained network for images of any size.
CONVOLUTION_CFG = {
    "url": "",
    "num_classes": 10,
    "input_size": (3, 32, 32),
    "pool_size": None,
    "crop_pct": 1.0,
    "interpolation": "bicubic",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "first_conv": "stem.0",
    "classifier": "head",
}


def transformer_cfg(first_conv: str, crop_pct: float) -> dict:
    """Return timm's description of an untrained vision transformer, for images of one size."""
    size = {"num_classes": 1000, "input_size": (3, 224, 224), "fixed_input_size": True}
    return {**CONVOLUTION_CFG, **size, "first_conv": first_conv, "crop_pct": crop_pct}
