"""Slow references for what the spaces say of their members: every member, one by one, and sizes of built networks."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import product

import torch
from torch.utils.flop_counter import FlopCounterMode

from libranas.core.arch import Arch
from libranas.networks import build
from libranas.spaces import AutoFormerSpace, NASBench101Space, PiTSpace, Space, TransNASMacroSpace
from libranas.spaces.cells.base import EDGES
from libranas.spaces.cells.nasbench101 import EDGES as MOST_EDGES
from libranas.spaces.cells.nasbench101 import NASLIB_CODES, OPERATIONS, VERTICES, Matrix, orders


def counted(space: Space, arch: Arch) -> tuple[int, int]:
    """Parameters and MACs of the built network, without storage for its weights."""
    with torch.device("meta"):
        model = build(space, arch, seed=0).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, space.channels, space.image_size, space.image_size))
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2


def members(space: Space) -> Iterator[Arch]:
    """Every member in a fixed order; of NAS-Bench-101 the representative of each cell."""
    if isinstance(space, AutoFormerSpace):
        for depth in space.depth:
            for width, *blocks in product(space.embed_dim, *[space.num_heads] * depth, *[space.mlp_ratio] * depth):
                for genes in product(*space.free.values()):
                    others = dict(zip(space.free, genes, strict=True))
                    yield space.arch(width, blocks[:depth], blocks[depth:], **others)
    elif isinstance(space, PiTSpace):
        for width, ratio, *depth, heads in product(space.base_dim, space.mlp_ratio, *space.stage_depth, space.heads):
            yield space.arch(width, ratio, depth, heads)
    elif isinstance(space, NASBench101Space):
        for vertices in range(2, VERTICES + 1):
            yield from _cells(space, vertices)
    elif isinstance(space, TransNASMacroSpace):
        for length in (4, 5, 6):
            for codes in product((1, 2, 3, 4), repeat=length):
                if 1 <= sum(c in (3, 4) for c in codes) <= 4 and 1 <= sum(c in (2, 4) for c in codes) <= 3:
                    yield space.arch(codes)
    else:
        yield from map(space.arch, product(space.OPERATIONS, repeat=len(EDGES)))


# -- NAS-Bench-101 ---------------------------------------------------------------------------------------


def _cells(space: NASBench101Space, vertices: int) -> Iterator[Arch]:
    for matrix, symmetries in graphs(vertices):
        for inner in product(range(2, len(NASLIB_CODES)), repeat=vertices - 2):
            codes = (0, *inner, 1)
            if all(codes <= tuple(codes[v] for v in order) for order in symmetries):
                yield Arch(space.family, {"matrix": matrix, "ops": tuple(NASLIB_CODES[code] for code in codes)})


def number_of_cells() -> int:
    """Number of different cells, without writing them down (Burnside's lemma for the operations of a graph)."""
    total = 0
    for vertices in range(2, VERTICES + 1):
        for _, symmetries in graphs(vertices):
            total += sum(len(OPERATIONS) ** (_cycles(order) - 2) for order in symmetries) // len(symmetries)
    return total


@lru_cache
def graphs(vertices: int) -> tuple[tuple[Matrix, tuple[tuple[int, ...], ...]], ...]:
    """The graphs with so many vertices, all on paths from the first to the last, and at most 9 edges, each in its
    smallest order, with the orders that leave its matrix as it is. Sorted."""
    found, seen = {}, set()
    for matrix in _matrices(vertices):
        if matrix not in seen:
            moved = list(orders(matrix))
            seen.update(m for _, m in moved)
            smallest = min(m for _, m in moved)
            found[smallest] = tuple(order for order, m in orders(smallest) if m == smallest)
    return tuple(sorted(found.items()))


def _matrices(vertices: int) -> Iterator[Matrix]:
    """Every upper triangular matrix of :func:`graphs`, in any order of its vertices."""

    def columns(v: int, left: int):
        """In-edges of the vertices from `v` on, at least one each and at most `left` together."""
        if v == vertices:
            yield ()
            return
        for column in product((0, 1), repeat=v):
            # each later vertex needs an edge too
            if 0 < sum(column) <= left - (vertices - 1 - v):
                for rest in columns(v + 1, left - sum(column)):
                    yield (column, *rest)

    for found in columns(1, MOST_EDGES):
        matrix = tuple(tuple(found[v - 1][u] if v > u else 0 for v in range(vertices)) for u in range(vertices))
        if all(any(row) for row in matrix[:-1]):
            yield matrix


def _cycles(order: tuple[int, ...]) -> int:
    """Number of cycles of a permutation."""
    seen, count = set(), 0
    for start in range(len(order)):
        count += start not in seen
        while start not in seen:
            seen.add(start)
            start = order[start]
    return count
