"""The search space of DARTS (Liu et al., ICLR 2019), which is NAS-Bench-301's too: a normal and a reduction cell.

A cell has two inputs, the outputs of the two cells before it (nodes 0 and 1), and four nodes (2 to 5), each the sum of
two operations on two different earlier nodes; its output is the four nodes side by side.
:mod:`libranas.networks.darts` describes the network.

A *mask* names for each cell and each of the 14 :data:`EDGES` the operations that are left, ``none`` among them: what
a search that prunes a supernet works on (:class:`libranas.networks.darts.DARTSSupernet`).
"""

import ast
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations, product
from math import prod

import numpy as np

from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.core.typed import setting
from libranas.spaces.cells.base import ConvolutionalSpace, Size, conv, conv_norm, halved, linear, norm
from libranas.spaces.registry import SpaceFamily

#: In the order of DARTS, which is also that of the codes in NASLib's tables.
OPERATIONS = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
NODES = (2, 3, 4, 5)
#: Every possible edge (from, to): by target, then by source.
EDGES = tuple((source, node) for node in NODES for source in range(node))
KINDS = ("normal", "reduce")
#: Sides of images in pixels from which the stem is the one for ImageNet unless the settings say otherwise.
LARGE = 128

Cell = tuple[tuple[str, int], ...]
Mask = Mapping[str, tuple[tuple[str, ...], ...]]

#: Kinds of operations that the features look at together.
_GROUPS = {op: {op} for op in OPERATIONS} | {
    "pool": {"max_pool_3x3", "avg_pool_3x3"},
    "sep_conv": {"sep_conv_3x3", "sep_conv_5x5"},
    "dil_conv": {"dil_conv_3x3", "dil_conv_5x5"},
    "conv": set(OPERATIONS[3:]),
}


@dataclass(frozen=True)
class DARTSSpace(ConvolutionalSpace):
    """The 10^18 members, with the task and the skeleton.

    Parameters
    ----------
    width, layers : int
        Channels of a node in the first cells (C), at least 2, and cells; for ImageNet the paper has 48 and 14.
    affine : bool
        True: as the paper trains its networks. False: as during its search; a normalisation follows each pooling too.
    large_stem : bool, optional
        The stem for ImageNet, which divides the resolution by 8. Default: for images of at least 128 x 128 pixels.

    Notes
    -----
    The tables of NAS-Bench-Suite-Zero (nasbench301-*) are of networks with ``width=32, layers=8, affine=False``;
    CIFAR-10 and SVHN: 32 pixels, 3 channels, 10 classes; Ninapro: (16, 52), 1, 18; spherical CIFAR-100: 60, 3, 100.

    Genes: ``normal`` and ``reduce``, eight pairs (operation, node that it reads), two for each node, sorted by the node
    that they read, as the order of a sum has no meaning. :meth:`representative` also does away with the order of the
    nodes: exchanging two of them moves channels of the output, which a permutation of the next weights makes good.
    """

    width: int = setting("Channels of the first cells; the default is published.", default=36)
    layers: int = setting("Cells of the network; the default is published.", default=20, least=3)
    affine: bool = setting(
        "Scale and shift in the normalisation of operations; the networks of NAS-Bench-Suite-Zero have none.",
        default=True,
    )
    large_stem: bool | None = None

    family = "darts"
    title = "the DARTS space"

    def __post_init__(self):
        super().__post_init__()
        if self.large_stem is None:
            object.__setattr__(self, "large_stem", min(self.sides) >= LARGE)
        for name, least in (("width", 2), ("layers", 3)):
            if getattr(self, name) < least:
                raise LibranasError(f"space.{name} is {getattr(self, name)}.", f"Choose at least {least}.")

    def arch(self, normal: Sequence[tuple[str, int]], reduce: Sequence[tuple[str, int]]) -> Arch:
        """Return the member with these cells: eight pairs (operation, node read), the two of a node in any order."""
        return Arch(self.family, {"normal": _sorted(normal), "reduce": _sorted(reduce)})

    def sample(self, rng: np.random.Generator) -> Arch:
        cells = []
        for _ in KINDS:
            sources = [int(source) for node in NODES for source in rng.permutation(node)[:2]]
            cells.append([(OPERATIONS[rng.integers(len(OPERATIONS))], source) for source in sources])
        return self.arch(*cells)

    def mutate(self, arch: Arch, rng: np.random.Generator) -> Arch:
        """Let one of the sixteen edges get another operation or, with equal chance, read another node."""
        cells = {kind: list(arch[kind]) for kind in KINDS}
        cell = cells[KINDS[rng.integers(len(KINDS))]]
        place = int(rng.integers(len(cell)))
        operation, source = cell[place]
        other = cell[place ^ 1][1]  # what the node's second edge reads
        free = [node for node in range(place // 2 + 2) if node not in (source, other)]
        if free and rng.random() < 0.5:
            cell[place] = (operation, free[rng.integers(len(free))])
        else:
            others = [op for op in OPERATIONS if op != operation]
            cell[place] = (others[rng.integers(len(others))], source)
        return self.arch(**cells)

    def cross(self, a: Arch, b: Arch, rng: np.random.Generator) -> Arch:
        """Take each node, with its two edges, from either parent with equal chance."""
        cells = {}
        for kind in KINDS:
            parents = [(a, b)[pick][kind] for pick in rng.integers(2, size=len(NODES))]
            cells[kind] = [pair for node, parent in enumerate(parents) for pair in parent[2 * node : 2 * node + 2]]
        return self.arch(**cells)

    def contains(self, arch: Arch) -> bool:
        return (
            arch.family == self.family
            and set(arch.genes) == set(KINDS)
            and all(_is_cell(arch[kind]) and arch[kind] == _sorted(arch[kind]) for kind in KINDS)
        )

    def representative(self, arch: Arch) -> Arch:
        """Put the nodes of each cell in the order that makes the genes smallest, among the orders in which every node
        reads earlier ones."""
        return self.arch(**{kind: min(_orders(arch[kind])) for kind in KINDS})

    def size(self) -> int:
        return prod(node * (node - 1) // 2 * len(OPERATIONS) ** 2 for node in NODES) ** 2

    def read(self, text: str) -> Arch | None:
        """Read ``Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=[2, 3, 4, 5], reduce=..., ...)``, the nested
        tuples (node read, code of the operation) of NASLib's tables, or canonical JSON."""
        normal, reduce = _read(text.strip())
        return self.arch(normal, reduce) if _is_cell(normal) and _is_cell(reduce) else None

    def notation(self) -> str:
        return (
            "Expected Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=[2, 3, 4, 5], reduce=[...], "
            "reduce_concat=[2, 3, 4, 5]) with two edges for each of four nodes, from different nodes before it, "
            f"and the operations {', '.join(OPERATIONS)}; or NASLib's tuples."
        )

    def format(self, arch: Arch) -> str:
        """Return the text of DARTS's ``Genotype``."""
        cells = (f"{kind}={list(arch[kind])}, {kind}_concat={list(NODES)}" for kind in KINDS)
        return f"Genotype({', '.join(cells)})"

    def features(self, arch: Arch) -> dict[str, float]:
        """Describe each cell: how often each operation occurs and where; edges that read the two inputs; nodes that no
        other one reads; longest path, and its mean over the nodes; for every kind of operation the most on a path to
        any node, and the mean over the nodes."""
        out = {}
        for kind in KINDS:
            cell = arch[kind]
            count, reads = Counter(op for op, _ in cell), Counter(source for _, source in cell)
            edges = _by_edge(cell)
            values = {f"count_{op}": count[op] for op in OPERATIONS}
            values |= {f"edge_{i}{j}_{op}": op == edges.get((i, j)) for i, j in EDGES for op in OPERATIONS}
            values |= {"reads_0": reads[0], "reads_1": reads[1], "ends": sum(not reads[node] for node in NODES)}
            for name, group in {"depth": set(OPERATIONS), **_GROUPS}.items():
                longest = [0, 0]
                for node in NODES:
                    pair = cell[2 * node - 4 : 2 * node - 2]
                    longest.append(max(longest[source] + (op in group) for op, source in pair))
                values |= {f"most_{name}": max(longest), f"mean_{name}": sum(longest) / len(NODES)}
            out |= {f"{kind}_{name}": float(value) for name, value in values.items()}
        return out

    def extremes(self) -> tuple[Arch, Arch]:
        """Return a network of poolings and one of separable 5x5 convolutions; what they read makes no difference."""
        sources = [source for _ in NODES for source in (0, 1)]
        cells = ([(op, source) for source in sources] for op in ("max_pool_3x3", "sep_conv_5x5"))
        return tuple(self.arch(cell, cell) for cell in cells)

    def total(self, arch: Arch) -> Size:
        skeleton, operation = _sizes(self)
        return sum((operation[kind, op, source < 2] for kind in KINDS for op, source in arch[kind]), skeleton)


def reductions(layers: int) -> tuple[int, int]:
    """Return the places of the reduction cells among so many cells."""
    return layers // 3, 2 * layers // 3


# -- masks -----------------------------------------------------------------------------------------------


def full_mask() -> Mask:
    """Return the mask of the whole supernet: all operations and ``none`` on every edge of both cells."""
    return {kind: (("none", *OPERATIONS),) * len(EDGES) for kind in KINDS}


def cell_mask(cell: Sequence[tuple[str, int]]) -> tuple[tuple[str, ...], ...]:
    """Return the operations of a cell of a member as those that are left on :data:`EDGES`."""
    edges = _by_edge(cell)
    return tuple((edges[edge],) if edge in edges else () for edge in EDGES)


def genotype(mask: Mask, scores: Mapping[str, Sequence[float]]) -> Arch:
    """Return the member that a mask with at most one operation an edge stands for.

    Parameters
    ----------
    scores : for each cell a number an edge; a node keeps the two edges with the highest. Edges with ``none`` or without
        an operation cannot be kept.
    """
    cells = {kind: [] for kind in KINDS}
    for kind, node in product(KINDS, NODES):
        found = []
        for (source, target), left, score in zip(EDGES, mask[kind], scores[kind], strict=True):
            if target == node and len(left) > 1:
                raise LibranasError(
                    f"Edge {source}-{node} of the {kind} cell has {len(left)} operations.", "Prune it to one."
                )
            if target == node and left and left[0] != "none":
                found.append((-score, source, left[0]))
        if len(found) < 2:
            raise LibranasError(f"Node {node} of the {kind} cell has fewer than two edges.", "Leave it two.")
        cells[kind] += [(op, source) for _, source, op in sorted(found)[:2]]
    return Arch(DARTSSpace.family, {kind: _sorted(cell) for kind, cell in cells.items()})


# -- cells -----------------------------------------------------------------------------------------------


def _by_edge(cell: Sequence[tuple[str, int]]) -> dict[tuple[int, int], str]:
    """Return the operation of each edge (from, to) of a cell."""
    return {(source, NODES[place // 2]): op for place, (op, source) in enumerate(cell)}


def _sorted(cell: Sequence[tuple[str, int]]) -> Cell:
    """Sort the two edges of each node by the node that they read."""
    pairs = [(str(op), int(source)) for op, source in cell]
    return tuple(
        pair for start in range(0, len(pairs), 2) for pair in sorted(pairs[start : start + 2], key=lambda p: p[1])
    )


def _is_cell(cell) -> bool:
    """Return whether `cell` has eight pairs with known operations, each node reading two different ones before it."""
    if not isinstance(cell, list | tuple) or len(cell) != 2 * len(NODES):
        return False
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 and pair[0] in OPERATIONS for pair in cell):
        return False
    sources = [source for _, source in cell]
    return all(type(s) is int and 0 <= s < 2 + place // 2 for place, s in enumerate(sources)) and all(
        first != second for first, second in zip(sources[::2], sources[1::2], strict=True)
    )


def _orders(cell: Cell) -> Iterator[Cell]:
    """Return the cell with its nodes in every order in which each reads earlier ones."""
    for order in permutations(NODES):
        place = {0: 0, 1: 1} | {node: new for node, new in zip(order, NODES, strict=True)}
        moved = []
        for node in order:
            pairs = [(op, place[source]) for op, source in cell[2 * node - 4 : 2 * node - 2]]
            if any(source >= place[node] for _, source in pairs):
                break
            moved += pairs
        else:
            yield _sorted(moved)


def _read(text: str) -> tuple[Sequence, Sequence]:
    """Read the two cells of one of the formats; ValueError and the like for another one."""
    if text.startswith(("(", "[")):
        tables = ast.literal_eval(text)
        if min(code for cell in tables for _, code in cell) < 0:
            raise ValueError("negative code")
        normal, reduce = ([(OPERATIONS[code], source) for source, code in cell] for cell in tables)
        return normal, reduce
    if text.startswith("Genotype"):
        call = ast.parse(text, mode="eval").body
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        if call.args or ast.unparse(call.func) != "Genotype" or set(given) != {*KINDS, *(f"{k}_concat" for k in KINDS)}:
            raise ValueError("no genotype")
        if {ast.unparse(given[f"{kind}_concat"]) for kind in KINDS} - {str([*NODES]), str(NODES), "range(2, 6)"}:
            raise ValueError("another output")
        return tuple(ast.literal_eval(given[kind]) for kind in KINDS)
    arch = Arch.from_json(text)
    if arch.family != DARTSSpace.family or set(arch.genes) != set(KINDS):
        raise ValueError("another family")
    return tuple(arch[kind] for kind in KINDS)


# -- sizes -----------------------------------------------------------------------------------------------


@lru_cache
def _sizes(space: DARTSSpace) -> tuple[Size, dict[tuple[str, str, bool], Size]]:
    """Return the size of the skeleton, and that of an operation on one edge of all cells of a kind, by whether the edge
    reads an input of the cell."""
    C, now = space.width, space.sides
    if space.large_stem:
        half = halved(now)
        quarter = halved(half)
        now = halved(quarter)
        skeleton = conv_norm(space.channels, C // 2, 3, prod(half))
        skeleton += conv_norm(C // 2, C, 3, prod(quarter)) + conv_norm(C, C, 3, prod(now))
        inputs = [C, C]
    else:
        skeleton = conv_norm(space.channels, 3 * C, 3, prod(now))
        inputs = [3 * C, 3 * C]
    operation = {(kind, op, near): Size() for kind in KINDS for op in OPERATIONS for near in (True, False)}
    for layer in range(space.layers):
        reduces = layer in reductions(space.layers)
        kind = KINDS[reduces]
        C *= 1 + reduces
        for channels in inputs:
            skeleton += conv_norm(channels, C, 1, prod(now))
        now = halved(now) if reduces else now
        for op in OPERATIONS:
            for near in (True, False):
                operation[kind, op, near] += _operation(op, C, prod(now), near and reduces, space.affine)
        inputs = [inputs[1], len(NODES) * C]
    return skeleton + linear(inputs[1], space.classes), operation


def _operation(op: str, C: int, pixels: int, strided: bool, affine: bool) -> Size:
    """Return the size of an operation that makes C maps of `pixels` pixels."""
    scaled = norm(C) if affine else Size()
    if op == "skip_connect" and strided:
        return conv(C, C, 1, pixels) + scaled
    if op == "skip_connect" or "pool" in op:
        return Size()
    separable = conv(1, C, int(op[-1]), pixels) + conv(C, C, 1, pixels) + scaled
    return separable * 2 if op.startswith("sep") else separable


FAMILY = SpaceFamily(DARTSSpace, network="libranas.networks.darts")
