"""Base of convolutional spaces: sizes of layers, and cells of four nodes with an operation on each of six edges.

In such a cell (NAS-Bench-201, TransNAS-Bench-101 micro) node 0 is the input, node j the sum over i < j of operation
(i, j) of node i, and node 3 the output.
"""

import ast
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, combinations, permutations, product
from typing import NamedTuple

import numpy as np

from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.spaces.base import Space

# -- sizes of layers; those without weights count nothing ------------------------------------------------


class Size(NamedTuple):
    """Trainable parameters, and multiply-accumulates of matrix products and convolutions for one image.

    Sizes add up; ``size * n`` is the size of `n` such layers.
    """

    params: int = 0
    macs: int = 0

    def __add__(self, other: "Size") -> "Size":
        return Size(self.params + other.params, self.macs + other.macs)

    def __mul__(self, times: int) -> "Size":
        return Size(self.params * times, self.macs * times)


def conv(inputs: int, outputs: int, kernel: int, pixels: int, bias: bool = False) -> Size:
    """Return the size of a square convolution with `pixels` output pixels."""
    weights = inputs * outputs * kernel**2
    return Size(weights + bias * outputs, weights * pixels)


def norm(channels: int) -> Size:
    """Return the size of a batch normalisation with scale and shift."""
    return Size(2 * channels)


def conv_norm(inputs: int, outputs: int, kernel: int, pixels: int) -> Size:
    """Return the size of a convolution with batch normalisation."""
    return conv(inputs, outputs, kernel, pixels) + norm(outputs)


def linear(inputs: int, outputs: int) -> Size:
    """Return the size of a linear layer with bias."""
    return Size(inputs * outputs + outputs, inputs * outputs)


def halved(sides: tuple[int, int]) -> tuple[int, int]:
    """Return height and width after a layer of stride 2: half of them, rounded up."""
    return tuple((side + 1) // 2 for side in sides)


# -- cells -----------------------------------------------------------------------------------------------

#: Edges (from, to) in the order of the genes and of the benchmarks' strings: by target, then by source.
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
#: NASLib's tables name a cell by six codes: the operations, and the edges by source, then by target.
NASLIB_CODES = ("skip_connect", "none", "nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3")
NASLIB_EDGES = tuple(sorted(EDGES))
#: Every path from the input to the output, as places in :data:`EDGES`.
PATHS = ((3,), (0, 4), (1, 5), (0, 2, 5))

#: A value of a node: terms of a sum; a term is an operation, the edge that owns its weights (-1: it has none), and the
#: value that it is applied to. The input is a term of its own.
_INPUT = ("x", -1, ())


def expression(edges: tuple[str, ...], weighted: frozenset[str]) -> str:
    """Write what a cell computes, in a notation that isomorphic cells share.

    ``none`` contributes nothing, ``skip_connect`` its node's own terms, an operation on a node without terms nothing (a
    convolution of zeros leaves the shift of its batch normalisation, which starts at zero). Operations in `weighted`
    have weights: each of them is numbered, so that one convolution whose output is used twice differs from two
    convolutions of the same input. Terms of a sum, and the numbers of convolutions that only differ by number, are in
    the order that makes the text smallest.
    """
    values = [(_INPUT,)]
    for target in (1, 2, 3):
        terms = []
        for edge, (source, end) in enumerate(EDGES):
            operation = edges[edge]
            if end != target or operation == "none" or not values[source]:
                continue
            if operation == "skip_connect":
                terms += values[source]
            else:
                terms.append((operation, edge if operation in weighted else -1, values[source]))
        values.append(tuple(terms))

    def text(value, names: dict[int, str]) -> str:
        return "+".join(sorted(f"{op}{names.get(edge, '')}({text(inner, names)})" for op, edge, inner in value))

    owners: dict[int, str] = {}  # edge with weights that reaches the output: its term without numbers

    def collect(value):
        for term in value:
            if term[1] >= 0:
                owners[term[1]] = text((term,), {})
            collect(term[2])

    collect(values[3])
    groups: dict[str, list[int]] = {}
    for edge in sorted(owners, key=lambda e: owners[e]):
        groups.setdefault(owners[edge], []).append(edge)
    orders = product(*(permutations(group) for group in groups.values()))
    return min(text(values[3], {e: f"#{i}" for i, e in enumerate(chain(*order))}) for order in orders)


def reducing(edges: tuple[str, ...]) -> tuple[str, ...]:
    """Return the operations of a cell whose identities at the input are replaced by reductions, which have weights."""
    return tuple(
        "reduce" if op == "skip_connect" and source == 0 else op for op, (source, _) in zip(edges, EDGES, strict=True)
    )


@lru_cache
def representatives(
    operations: tuple[str, ...], weighted: frozenset[str], with_reductions: bool = False
) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Map the edges of every cell to those of the smallest cell with the same :func:`expression`.

    The smallest has the fewest operations with weights (so none without effect), and is then the first in the order of
    enumeration. With `with_reductions` the network has :func:`reducing` cells beside the plain ones, and both
    expressions must be the same. Takes a second.
    """
    smallest: dict[tuple[str, ...], tuple] = {}
    forms = {}
    weighted |= {"reduce"}
    for index, edges in enumerate(product(operations, repeat=len(EDGES))):
        kinds = (edges, reducing(edges)) if with_reductions else (edges,)
        forms[edges] = form = tuple(expression(kind, weighted) for kind in kinds)
        key = (sum(op in weighted for op in kinds[-1]), index, edges)
        smallest[form] = min(smallest.get(form, key), key)
    return {edges: smallest[form][-1] for edges, form in forms.items()}


# -- spaces ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ConvolutionalSpace(Space):
    """A space of networks that take images of any size. Its closed forms come from the method ``total``.

    Parameters
    ----------
    image_size : int or (height, width)
        In pixels.
    channels, classes : int
        The rest of the task.
    """

    image_size: int | tuple[int, int] = 32
    channels: int = 3
    classes: int = 10

    #: Must divide height and width.
    divisor = 1

    def __post_init__(self):
        size = self.image_size
        height, width = (size, size) if isinstance(size, int) else tuple(size)
        object.__setattr__(self, "image_size", height if height == width else (height, width))
        divisor = self.divisor
        if height < divisor or width < divisor or height % divisor or width % divisor:
            raise LibranasError(
                f"The networks of the space {self.family} cannot take images of {height} x {width} pixels.",
                f"Choose a data.image_size that {divisor} divides.",
            )

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of an image in pixels."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    def total(self, arch: Arch) -> Size:
        """Return parameters and multiply-accumulates of a member."""
        raise NotImplementedError

    def params(self, arch: Arch) -> int:
        return self.total(arch).params

    def macs(self, arch: Arch) -> int:
        return self.total(arch).macs


class CellSpace(Space):
    """The members of a space with the one gene ``edges``: an operation for each of :data:`EDGES`."""

    #: Names of the operations; the order of enumeration. ``none`` comes first.
    OPERATIONS: tuple[str, ...]
    #: The operations that have weights, and whether some cells are reductions: see :func:`representatives`.
    WEIGHTED: frozenset[str]
    WITH_REDUCTIONS = False
    #: The operations with the fewest and the most parameters and MACs.
    SMALLEST: str
    LARGEST: str

    def arch(self, edges) -> Arch:
        """Return the member with these operations, in the order of :data:`EDGES`."""
        return Arch(self.family, {"edges": tuple(str(op) for op in edges)})

    def sample(self, rng: np.random.Generator) -> Arch:
        return self.arch(self.OPERATIONS[i] for i in rng.integers(len(self.OPERATIONS), size=len(EDGES)))

    def mutate(self, arch: Arch, rng: np.random.Generator) -> Arch:
        """Put another operation on one edge."""
        edges = list(arch["edges"])
        place = rng.integers(len(edges))
        others = [op for op in self.OPERATIONS if op != edges[place]]
        edges[place] = others[rng.integers(len(others))]
        return self.arch(edges)

    def cross(self, a: Arch, b: Arch, rng: np.random.Generator) -> Arch:
        """Take each edge from either parent with equal chance."""
        return self.arch(
            x if first else y for x, y, first in zip(a["edges"], b["edges"], rng.random(len(EDGES)) < 0.5, strict=True)
        )

    def contains(self, arch: Arch) -> bool:
        edges = arch.genes.get("edges")
        return (
            arch.family == self.family
            and set(arch.genes) == {"edges"}
            and isinstance(edges, tuple)
            and len(edges) == len(EDGES)
            and all(op in self.OPERATIONS for op in edges)
        )

    def from_codes(self, text: str, names=NASLIB_CODES, edges=NASLIB_EDGES) -> Arch:
        """Return the member of six codes, places in `names`, one for each of `edges`."""
        code = dict(zip(edges, ast.literal_eval(text), strict=True))
        known = dict(enumerate(names))
        return self.arch(known[code[edge]] for edge in EDGES)

    def representative(self, arch: Arch) -> Arch:
        """Return the smallest cell that computes the same; see :func:`representatives`."""
        return self.arch(representatives(self.OPERATIONS, self.WEIGHTED, self.WITH_REDUCTIONS)[arch["edges"]])

    def features(self, arch: Arch) -> dict[str, float]:
        """Count each operation and say where it is. For every set of operations without ``none``: the length of the
        shortest path that uses no other (4: there is none), the most such operations on a path that carries a signal,
        and the number of such edges at the input and at the output (after GRAF: Kadlecova et al., 2024)."""
        edges = arch["edges"]
        out = {f"count_{op}": float(edges.count(op)) for op in self.OPERATIONS}
        for (i, j), operation in zip(EDGES, edges, strict=True):
            out |= {f"edge_{i}{j}_{op}": float(op == operation) for op in self.OPERATIONS}
        paths = [[edges[e] for e in path] for path in PATHS]
        alive = [path for path in paths if "none" not in path]
        out["paths"] = float(len(alive))
        used = self.OPERATIONS[1:]
        for chosen in chain.from_iterable(combinations(used, n) for n in range(1, len(used) + 1)):
            name = "+".join(chosen)
            lengths = (len(path) for path in alive if all(op in chosen for op in path))
            out[f"shortest_{name}"] = float(min(lengths, default=4))
            out[f"most_{name}"] = float(max((sum(op in chosen for op in path) for path in alive), default=0))
            out[f"input_{name}"] = float(sum(edges[e] in chosen for e in (0, 1, 3)))
            out[f"output_{name}"] = float(sum(edges[e] in chosen for e in (3, 4, 5)))
        return out

    def size(self) -> int:
        return len(self.OPERATIONS) ** len(EDGES)

    def extremes(self) -> tuple[Arch, Arch]:
        return tuple(self.arch([op] * len(EDGES)) for op in (self.SMALLEST, self.LARGEST))
