"""The search space NAS-Bench-201 (Dong and Yang, ICLR 2020): five operations on the six edges of a cell.

The network is a stem, three stages of equal cells with C, 2C and 4C channels, a residual block that halves the
resolution between two stages, and a classifier; see :mod:`libranas.networks.nasbench201`. Published skeleton: C = 16,
five cells a stage.
"""

import ast
from dataclasses import dataclass
from functools import lru_cache

from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.spaces.cells.base import EDGES, CellSpace, spatial_size
from libranas.spaces.cells.counting import Size, Sized, conv, global_pool, linear, norm, pool, relu

#: NASLib's tables name a member by six codes, edges by source: (0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3).
NASLIB_CODES = ("skip_connect", "none", "nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3")
NASLIB_EDGES = tuple(sorted(EDGES))


@dataclass(frozen=True)
class NASBench201Space(CellSpace, Sized):
    """The 15,625 members together with the task and the skeleton.

    Parameters
    ----------
    image_size : int or (height, width)
        Divisible by 4. Of the published tables: CIFAR 32 (3 channels), SVHN 32, Ninapro (16, 52) with 1 channel and
        18 classes, spherical CIFAR-100 60.
    channels, classes : int
        The rest of the task.
    width : int
        Channels of the first stage (C).
    cells : int
        Of each stage (N).

    Notes
    -----
    :meth:`representative` follows what a cell computes, weights included
    (:func:`libranas.spaces.cells.base.expression`):
    5,260 different networks. The paper's 6,466 come from a rule that keeps the zeros of a sum and does not
    ask whether one convolution is used twice; zc_combine's 9,445 from replacing the operations on edges that no
    path uses by ``none``, and nothing else.
    """

    image_size: int | tuple[int, int] = 32
    channels: int = 3
    classes: int = 10
    width: int = 16
    cells: int = 5

    family = "nasbench201"
    OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    WEIGHTED = frozenset({"nor_conv_1x1", "nor_conv_3x3"})
    SMALLEST, LARGEST = "skip_connect", "nor_conv_3x3"

    def __post_init__(self):
        height, width = spatial_size(self.image_size, 4, self.family)
        object.__setattr__(self, "image_size", height if height == width else (height, width))

    @classmethod
    def from_settings(cls, settings: dict, image_size: int, channels: int, classes: int) -> "NASBench201Space":
        """Build from the config section ``space``: ``width`` and ``cells`` if they are not the published ones."""
        skeleton = {k: settings[k] for k in ("width", "cells") if settings.get(k) is not None}
        return cls(image_size, channels, classes, **skeleton)

    # -- strings ---------------------------------------------------------------------------------------

    def parse(self, text: str) -> Arch:
        """Read ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``, the six codes of NASLib's tables, or canonical JSON."""
        text = text.strip()
        try:
            if text.startswith("|"):
                found = {}
                for target, node in enumerate(text.split("+"), start=1):
                    for edge in node.strip("|").split("|"):
                        operation, source = edge.split("~")
                        found[int(source), target] = operation
                arch = self.arch(found[edge] for edge in EDGES) if len(found) == len(EDGES) else None
            elif text.startswith(("(", "[")):
                codes = dict(zip(NASLIB_EDGES, ast.literal_eval(text), strict=True))
                arch = self.arch(NASLIB_CODES[codes[edge]] for edge in EDGES) if min(codes.values()) >= 0 else None
            else:
                arch = Arch.from_json(text)
        except (ValueError, KeyError, IndexError, TypeError, SyntaxError, LibranasError):
            arch = None
        if arch is None or not self.contains(arch):
            raise LibranasError(
                f"{text!r} is no member of NAS-Bench-201.",
                "Expected |op~0|+|op~0|op~1|+|op~0|op~1|op~2| with the operations "
                f"{', '.join(self.OPERATIONS)}, or six codes such as (4, 0, 3, 1, 4, 3).",
            )
        return self.canonical(arch)

    def format(self, arch: Arch) -> str:
        """The string of the benchmark's files, ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``."""
        edges = dict(zip(EDGES, arch["edges"], strict=True))
        nodes = ("|".join(f"{edges[i, j]}~{i}" for i in range(j)) for j in (1, 2, 3))
        return "+".join(f"|{node}|" for node in nodes)

    # -- closed forms ----------------------------------------------------------------------------------

    def total(self, arch: Arch) -> Size:
        """Parameters, MACs and published FLOPs of a member."""
        skeleton, operation = _sizes(self)
        return sum((operation[op] for op in arch["edges"]), skeleton)


@lru_cache
def _sizes(space: NASBench201Space) -> tuple[Size, dict[str, Size]]:
    """Of the skeleton, and of each operation on one edge of all cells."""
    height, width = spatial_size(space.image_size, 4, space.family)
    C, pixels = space.width, height * width
    skeleton = conv(space.channels, C, 3, pixels) + norm(C, pixels)
    operation = dict.fromkeys(space.OPERATIONS, Size())
    for stage in range(3):
        if stage:  # the residual block: two ReLU-convolution-normalisations, average pooling and a 1x1 convolution
            skeleton += relu(C, pixels) + pool(C, 2, pixels // 4)
            pixels //= 4
            skeleton += conv(C, 2 * C, 3, pixels) + conv(2 * C, 2 * C, 3, pixels) + conv(C, 2 * C, 1, pixels)
            C *= 2
            skeleton += relu(C, pixels) + norm(C, pixels) * 2
        for name, kernel in (("nor_conv_1x1", 1), ("nor_conv_3x3", 3)):
            operation[name] += (relu(C, pixels) + conv(C, C, kernel, pixels) + norm(C, pixels)) * space.cells
        operation["avg_pool_3x3"] += pool(C, 3, pixels) * space.cells
    skeleton += norm(C, pixels) + relu(C, pixels) + global_pool(C, height // 4, width // 4) + linear(C, space.classes)
    return skeleton, operation
