"""Base class of search spaces. Counting and editing architectures needs no model and no torch."""

from functools import lru_cache

import numpy as np

from libranas.core.arch import Arch
from libranas.core.errors import LibranasError


class Space:
    """A search space for one task. Subclasses are frozen dataclasses with the fields of the task (``image_size``,
    ``channels``, ``classes``) and the choices; those declared by :func:`libranas.core.typed.setting` are keys of the
    config section ``space``.

    A subclass defines ``arch(**genes)``, which makes a member, and every method here that raises NotImplementedError.
    """

    #: Name of the family, as in the configuration and in every architecture.
    family: str
    #: Name of the space in messages.
    title: str = "the space"

    def sample(self, rng: np.random.Generator) -> Arch:
        """Return one architecture, each choice drawn uniformly."""
        raise NotImplementedError

    def mutate(self, arch: Arch, rng: np.random.Generator) -> Arch:
        """Return a neighbour of `arch`; always a member of the space."""
        raise NotImplementedError

    def cross(self, a: Arch, b: Arch, rng: np.random.Generator) -> Arch:
        """Return a child that takes every gene from `a` or `b`; always a member of the space."""
        raise NotImplementedError

    def contains(self, arch: Arch) -> bool:
        """Return whether `arch` is a member."""
        raise NotImplementedError

    def misfit(self, arch: Arch) -> str:
        """Say why `arch` is no member, "" where this space has no words for it."""
        return ""

    def features(self, arch: Arch) -> dict[str, float]:
        """Describe `arch` to a learned ranking by numbers, besides its size; the same keys for every member."""
        raise NotImplementedError

    def size(self) -> int:
        """Return the number of members."""
        raise NotImplementedError

    def extremes(self) -> tuple[Arch, ...]:
        """Return members among which are those with the fewest and the most parameters, and MACs."""
        raise NotImplementedError

    def params(self, arch: Arch) -> int:
        """Count the trainable parameters of the built network (closed form)."""
        raise NotImplementedError

    def macs(self, arch: Arch) -> int:
        """Count the multiply-accumulates of one image, matrix products and convolutions only (closed form)."""
        raise NotImplementedError

    def representative(self, arch: Arch) -> Arch:
        """Return the member that stands for all members that are the same network as `arch` (isomorphic cells).

        By default different genes make different networks.
        """
        return arch

    def canonical(self, arch: Arch) -> Arch:
        """Give the genes of a member the types of this space (4.0 where a table says 4), so that it has one id."""
        return self.arch(**arch.genes)

    def format(self, arch: Arch) -> str:
        """Return the usual string of the original benchmark; ``parse(format(arch)) == arch``."""
        return arch.json

    def read(self, text: str) -> Arch | None:
        """Read an architecture in any notation of the original benchmark, or canonical JSON, for :meth:`parse`.

        None, or an error of the kinds that :meth:`parse` catches, if `text` is in no such notation.
        """
        return Arch.from_json(text)

    def notation(self) -> str:
        """Return the sentence of error messages that says what :meth:`parse` expects."""
        return f"The space is {self}."

    def parse(self, text: str) -> Arch:
        """Return the member that `text` names; see :meth:`read`.

        Raises
        ------
        LibranasError
            If it names none.
        """
        try:
            arch = self.read(text)
        except (ValueError, LookupError, TypeError, AttributeError, SyntaxError, RecursionError, LibranasError):
            arch = None
        if arch is None or not self.contains(arch):
            why = arch and self.misfit(arch)
            raise LibranasError(
                f"{text!r} is not a member of {self.title}{f': {why}' if why else ''}.", self.notation()
            )
        return self.canonical(arch)


@lru_cache(maxsize=1 << 16)  # a search asks for every member of its history again and again
def network(space: Space, arch: Arch) -> str:
    """Return the id of the member that stands for all that are the same network as `arch`."""
    return space.representative(arch).id
