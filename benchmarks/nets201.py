"""Networks of the search space NAS-Bench-201 (Dong and Yang, ICLR 2020), for benchmarks.

A cell is a complete directed graph of four nodes; every edge is one of five operations. The network is a stem, three
stages of equal cells with C, 2C and 4C channels, a residual block that halves the resolution between two stages, and a
classifier. Written from the paper; the network whose six edges are all 3x3 convolutions has the published number of
parameters (1,531,546 for C = 16, five cells a stage, ten classes).
"""

import torch
from torch import nn

#: Five 3x3 convolutions and one identity.
ARCH = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def relu_conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """ReLU, convolution without bias ("same" padding), batch normalisation."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


class Zero(nn.Module):
    """The absent edge."""

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x_BCHW)


OPERATIONS = {
    "none": lambda channels: Zero(),
    "skip_connect": lambda channels: nn.Identity(),
    "nor_conv_1x1": lambda channels: relu_conv_bn(channels, channels, 1),
    "nor_conv_3x3": lambda channels: relu_conv_bn(channels, channels, 3),
    "avg_pool_3x3": lambda channels: nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
}


def edges(arch: str) -> dict[tuple[int, int], str]:
    """The operation of every edge (from, to) of an architecture string ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``.

    Raises
    ------
    ValueError
        If the string does not name one known operation for each of the six edges.
    """
    found = {}
    for target, node in enumerate(arch.split("+"), start=1):
        for edge in node.strip("|").split("|"):
            operation, _, source = edge.partition("~")
            if operation not in OPERATIONS or not source.isdecimal():
                raise ValueError(f"{edge!r} is no edge; known operations: {', '.join(OPERATIONS)}")
            found[int(source), target] = operation
    if sorted(found) != [(i, j) for i in range(4) for j in range(i + 1, 4)]:
        raise ValueError(f"not an architecture of NAS-Bench-201: {arch!r}")
    return found


class Cell(nn.Module):
    """Node j is the sum over its predecessors i of operation (i, j); the last node is the output."""

    def __init__(self, arch: str, channels: int):
        super().__init__()
        self.operations = nn.ModuleDict({f"{i}{j}": OPERATIONS[op](channels) for (i, j), op in edges(arch).items()})

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        nodes = [x_BCHW]
        for j in range(1, 4):
            nodes.append(sum(self.operations[f"{i}{j}"](nodes[i]) for i in range(j)))
        return nodes[-1]


class Reduction(nn.Module):
    """Residual block that doubles the channels and halves the resolution."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.main = nn.Sequential(relu_conv_bn(inputs, outputs, 3, 2), relu_conv_bn(outputs, outputs, 3))
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.main(x_BCHW) + self.shortcut(x_BCHW)


class Network201(nn.Module):
    """A network of NAS-Bench-201, with PyTorch's initial weights.

    Parameters
    ----------
    arch : str
        See :func:`edges`.
    channels : int
        Of the first stage (C).
    cells : int
        A stage (N).
    classes : int

    Attributes
    ----------
    features : tuple of module names
        The primary blocks in execution order: stem, cells and reductions.
    """

    def __init__(self, arch: str = ARCH, channels: int = 16, cells: int = 5, classes: int = 10):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        blocks = []
        for width in (channels, 2 * channels, 4 * channels):
            if blocks:
                blocks.append(Reduction(width // 2, width))
            blocks += [Cell(arch, width) for _ in range(cells)]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(
            nn.BatchNorm2d(4 * channels),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4 * channels, classes),
        )
        self.features = ("stem", *(f"blocks.{i}" for i in range(len(blocks))))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Logits (B, classes) of images (B, 3, H, W); H and W divisible by 4."""
        return self.head(self.blocks(self.stem(x_BCHW)))
