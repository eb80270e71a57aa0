"""The protocol of a search space. Counting and editing architectures needs no model and no torch."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Protocol

import numpy as np

from libranas.core.arch import Arch


class Space(Protocol):
    """The protocol of a search space. Counting and editing architectures needs no model and no torch."""

    family: str

    def sample(self, rng: np.random.Generator) -> Arch:
        """One architecture, each choice drawn uniformly."""

    def mutate(self, arch: Arch, rng: np.random.Generator) -> Arch:
        """A neighbour of `arch`; always a member of the space."""

    def cross(self, a: Arch, b: Arch, rng: np.random.Generator) -> Arch:
        """A child that takes every gene from `a` or `b`; always a member of the space."""

    def contains(self, arch: Arch) -> bool:
        """Whether `arch` is a member."""

    def canonical(self, arch: Arch) -> Arch:
        """Member `arch` with genes of the types that the space itself gives them (4.0 where a table says 4),
        so that it has one id."""

    def parse(self, text: str) -> Arch:
        """The member that `text` names: canonical JSON, or a string of the benchmark that the space comes from.

        Raises a LibranasError for anything else."""

    def format(self, arch: Arch) -> str:
        """The usual string of the original benchmark; ``parse(format(arch)) == arch``."""

    def representative(self, arch: Arch) -> Arch:
        """The member that stands for all members that are the same network as `arch` (isomorphic cells).
        `arch` itself where different genes always make different networks."""

    def features(self, arch: Arch) -> dict[str, float]:
        """Numbers that describe `arch` to a learned ranking, besides its size; the same keys for every member."""

    def members(self) -> Iterator[Arch]:
        """Every member, lazily, in a fixed order."""

    def size(self) -> int:
        """Number of members."""

    def params(self, arch: Arch) -> int:
        """Trainable parameters of the built network (closed form)."""

    def macs(self, arch: Arch) -> int:
        """Multiply-accumulates of one image through the built network, matrix products and
        convolutions only (closed form)."""

    def extremes(self) -> tuple[Arch, ...]:
        """Members among which are those with the fewest and the most parameters, and MACs."""


@lru_cache(maxsize=1 << 16)  # a search asks for every member of its history again and again
def network(space: Space, arch: Arch) -> str:
    """Id of the member that stands for all that are the same network as `arch`."""
    return space.representative(arch).id
