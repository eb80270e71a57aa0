"""The search space NAS-Bench-201 (Dong and Yang, ICLR 2020): five operations on the six edges of a cell.

:mod:`libranas.networks.nasbench201` describes the network.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import prod

from libranas.core.arch import Arch
from libranas.core.typed import setting
from libranas.spaces.cells.base import EDGES, CellSpace, ConvolutionalSpace, Size, conv, conv_norm, linear, norm
from libranas.spaces.registry import SpaceFamily


@dataclass(frozen=True)
class NASBench201Space(CellSpace, ConvolutionalSpace):
    """The 15,625 members, with the task and the skeleton.

    Parameters
    ----------
    image_size : int or (height, width)
        Divisible by 4. Of the published tables: CIFAR 32 (3 channels), SVHN 32, Ninapro (16, 52) with 1 channel and
        18 classes, spherical CIFAR-100 60.

    Notes
    -----
    :meth:`representative` follows what a cell computes, weights included
    (:func:`libranas.spaces.cells.base.expression`): 5,260 different networks. The paper's 6,466 come from a rule that
    keeps the zeros of a sum and does not ask whether one convolution is used twice; zc_combine's 9,445 from replacing
    the operations on edges that no path uses by ``none``, and nothing else.
    """

    width: int = setting("Channels of the first cells; the default is published.", default=16)
    cells: int = setting("Cells of a stage; the default is published.", default=5)

    family = "nasbench201"
    title = "NAS-Bench-201"
    divisor = 4
    OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    WEIGHTED = frozenset({"nor_conv_1x1", "nor_conv_3x3"})
    SMALLEST, LARGEST = "skip_connect", "nor_conv_3x3"

    def read(self, text: str) -> Arch:
        """Read ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``, the six codes of NASLib's tables, or canonical JSON."""
        text = text.strip()
        if text.startswith("|"):
            found = {}
            for target, node in enumerate(text.split("+"), start=1):
                for edge in node.strip("|").split("|"):
                    operation, source = edge.split("~")
                    found[int(source), target] = operation
            return self.arch(found[edge] for edge in EDGES) if len(found) == len(EDGES) else None
        if text.startswith(("(", "[")):
            return self.from_codes(text)
        return Arch.from_json(text)

    def notation(self) -> str:
        return (
            f"Expected |op~0|+|op~0|op~1|+|op~0|op~1|op~2| with the operations {', '.join(self.OPERATIONS)}, "
            "or six codes such as (4, 0, 3, 1, 4, 3)."
        )

    def format(self, arch: Arch) -> str:
        """Return the string of the benchmark's files, ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``."""
        edges = dict(zip(EDGES, arch["edges"], strict=True))
        nodes = ("|".join(f"{edges[i, j]}~{i}" for i in range(j)) for j in (1, 2, 3))
        return "+".join(f"|{node}|" for node in nodes)

    def total(self, arch: Arch) -> Size:
        skeleton, operation = _sizes(self)
        return sum((operation[op] for op in arch["edges"]), skeleton)


@lru_cache
def _sizes(space: NASBench201Space) -> tuple[Size, dict[str, Size]]:
    """Return the size of the skeleton, and of each operation on one edge of all cells."""
    C, pixels = space.width, prod(space.sides)
    skeleton = conv_norm(space.channels, C, 3, pixels)
    operation = dict.fromkeys(space.OPERATIONS, Size())
    for stage in range(3):
        if stage:  # the residual block: two ReLU-convolution-normalisations, average pooling and a 1x1 convolution
            pixels //= 4
            skeleton += conv_norm(C, 2 * C, 3, pixels) + conv_norm(2 * C, 2 * C, 3, pixels) + conv(C, 2 * C, 1, pixels)
            C *= 2
        for name, kernel in (("nor_conv_1x1", 1), ("nor_conv_3x3", 3)):
            operation[name] += conv_norm(C, C, kernel, pixels) * space.cells
    return skeleton + norm(C) + linear(C, space.classes), operation


FAMILY = SpaceFamily(NASBench201Space, network="libranas.networks.nasbench201")
