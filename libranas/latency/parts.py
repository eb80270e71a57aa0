"""The parts of the networks of a family of spaces, for a table of latencies: blocks, and ends, which are the rest."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import NamedTuple, Protocol

from libranas.core.arch import Arch
from libranas.spaces import AutoFormerSpace, PiTSpace, Space
from libranas.spaces.autoformer import NETWORK_GENES
from libranas.spaces.pit import STAGES


class Stack(NamedTuple):
    """Two networks that differ in the number of blocks of one kind alone: `deep` has `between` more."""

    block: tuple
    one: Arch
    deep: Arch
    between: int


class Parts(Protocol):
    """The parts of the networks of a family. `block` and `ends` name what the latency of each depends on; the last of
    these may be absent."""

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
    """Parts of an AutoFormer: a block depends on width, heads and MLP ratio, the ends on the width; both on `genes` of
    the network where the space offers them, written as text."""

    block = ("embed_dim", "num_heads", "mlp_ratio", "genes")
    ends = ("embed_dim", "genes")
    #: Genes of the network on which no block depends, and no end.
    OF_ENDS = ("pool", "stem")
    OF_BLOCKS = ("mlp", "qk_norm", "layer_scale")

    @classmethod
    def of(cls, arch: Arch) -> tuple[tuple, list[tuple]]:
        def genes(without: tuple[str, ...]) -> tuple[str, ...]:
            text = ", ".join(f"{g} {arch[g]}" for g in NETWORK_GENES if g in arch.genes and g not in without)
            return (text,) if text else ()

        width, of_block = arch["embed_dim"], genes(cls.OF_ENDS)
        blocks = zip(arch["num_heads"], arch["mlp_ratio"], strict=True)
        return (width, *genes(cls.OF_BLOCKS)), [(width, *block, *of_block) for block in blocks]

    @classmethod
    def stacks(cls, space: AutoFormerSpace) -> tuple[AutoFormerSpace, list[Stack], list[Arch]]:
        most = max(*space.depth, 2)
        stacks = []
        for genes in cls._genes(space, cls.OF_ENDS):
            for width, heads, ratio in product(space.embed_dim, space.num_heads, space.mlp_ratio):
                one, deep = (space.arch(width, [heads] * depth, [ratio] * depth, **genes) for depth in (1, most))
                stacks.append(Stack(cls.of(one)[1][0], one, deep, most - 1))
        block = [min(space.num_heads)], [min(space.mlp_ratio)]
        ends = product(space.embed_dim, cls._genes(space, cls.OF_BLOCKS))
        others = [space.arch(width, *block, **genes) for width, genes in ends] if space.free else []
        return replace(space, depth=(1, most, *space.depth)), stacks, others

    @classmethod
    def extremes(cls, space: AutoFormerSpace, blocks: Mapping[tuple, float]) -> list[Arch]:
        found = []
        for genes, width, pick in product(cls._genes(space), space.embed_dim, (min, max)):
            ones = [space.arch(width, [h], [r], **genes) for h, r in product(space.num_heads, space.mlp_ratio)]
            one = pick(ones, key=lambda arch: blocks[cls.of(arch)[1][0]])
            for depth in (min(space.depth), max(space.depth)):
                found.append(space.arch(width, one["num_heads"] * depth, one["mlp_ratio"] * depth, **genes))
        return found

    @staticmethod
    def _genes(space: AutoFormerSpace, fixed: tuple[str, ...] = ()) -> list[dict]:
        """Return all combinations of the genes of a network, those of `fixed` at their first choice."""
        choices = [choices[:1] if gene in fixed else choices for gene, choices in space.free.items()]
        return [dict(zip(space.free, values, strict=True)) for values in product(*choices)]


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
