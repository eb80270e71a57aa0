"""The parts of the networks of a family of spaces, for a table of latencies: blocks, and ends, which are the rest."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import NamedTuple, Protocol

from libranas.core.arch import Arch
from libranas.spaces import AutoFormerSpace, PiTSpace, Space
from libranas.spaces.pit import STAGES


class Stack(NamedTuple):
    """Two networks that differ in the number of blocks of one kind alone: `deep` has `between` more."""

    block: tuple
    one: Arch
    deep: Arch
    between: int


class Parts(Protocol):
    """The parts of the networks of a family. `block` and `ends` name what the latency of each depends on."""

    block: tuple[str, ...]
    ends: tuple[str, ...]

    @staticmethod
    def of(arch: Arch) -> tuple[tuple, list[tuple]]:
        """Return what the ends of a network depend on, and what each of its blocks depends on."""

    @staticmethod
    def stacks(space: Space) -> tuple[Space, list[Stack], list[Arch]]:
        """Return a space with more depths, its stacks for all kinds of block, and members of one block a stage for ends
        that no stack has."""

    @staticmethod
    def extremes(space: Space, blocks: Mapping[tuple, float]) -> list[Arch]:
        """Return members among which are the fastest and the slowest, from the milliseconds of the blocks.

        A block that was too fast to measure may be below zero, so that more of them are faster."""


class AutoFormerParts:
    """Parts of an AutoFormer: a block depends on width, heads and MLP ratio, the ends on the width."""

    block = ("embed_dim", "num_heads", "mlp_ratio")
    ends = ("embed_dim",)

    @staticmethod
    def of(arch: Arch) -> tuple[tuple, list[tuple]]:
        width = arch["embed_dim"]
        return (width,), [(width, *kind) for kind in zip(arch["num_heads"], arch["mlp_ratio"], strict=True)]

    @staticmethod
    def stacks(space: AutoFormerSpace) -> tuple[AutoFormerSpace, list[Stack], list[Arch]]:
        most = max(*space.depth, 2)
        kinds = product(space.embed_dim, space.num_heads, space.mlp_ratio)
        stacks = [
            Stack((w, h, r), *(space.arch(w, [h] * depth, [r] * depth) for depth in (1, most)), most - 1)
            for w, h, r in kinds
        ]
        return replace(space, depth=(1, most, *space.depth)), stacks, []

    @staticmethod
    def extremes(space: AutoFormerSpace, blocks: Mapping[tuple, float]) -> list[Arch]:
        found = []
        for width, pick in product(space.embed_dim, (min, max)):
            heads, ratio = pick(product(space.num_heads, space.mlp_ratio), key=lambda k: blocks[width, *k])
            found += [space.arch(width, [heads] * d, [ratio] * d) for d in (min(space.depth), max(space.depth))]
        return found


class PiTParts:
    """Parts of a PiT: a block depends on its stage too, whose tokens are fewer than those of the one before. The ends
    depend on the widths of all stages."""

    block = ("stage", "base_dim", "num_heads", "mlp_ratio")
    ends = ("base_dim", "num_heads")

    @staticmethod
    def of(arch: Arch) -> tuple[tuple, list[tuple]]:
        width, ratio, heads = arch["base_dim"], arch["mlp_ratio"], arch["num_heads"]
        blocks = [(i, width, heads[i], ratio) for i, depth in enumerate(arch["depth"]) for _ in range(depth)]
        return (width, heads), blocks

    @staticmethod
    def stacks(space: PiTSpace) -> tuple[PiTSpace, list[Stack], list[Arch]]:
        most = [max(*choices, 2) for choices in space.stage_depth]
        one = [1] * STAGES
        stacks = []
        for width, ratio, heads in product(space.base_dim, space.mlp_ratio, space.num_heads):
            shallow = space.arch(width, ratio, one, [heads] * STAGES)
            for i, depth in enumerate(most):
                deep = space.arch(width, ratio, [*one[:i], depth, *one[i + 1 :]], [heads] * STAGES)
                stacks.append(Stack((i, width, heads, ratio), shallow, deep, depth - 1))
        mixed = (heads for heads in space.heads if len(set(heads)) > 1)
        others = [
            space.arch(width, min(space.mlp_ratio), one, heads) for width, heads in product(space.base_dim, mixed)
        ]
        depths = tuple((1, depth, *choices) for depth, choices in zip(most, space.stage_depth, strict=True))
        return replace(space, stage_depth=depths), stacks, others

    @staticmethod
    def extremes(space: PiTSpace, blocks: Mapping[tuple, float]) -> list[Arch]:
        depths = product(*((min(choices), max(choices)) for choices in space.stage_depth))
        return [space.arch(*genes) for genes in product(space.base_dim, space.mlp_ratio, depths, space.heads)]
