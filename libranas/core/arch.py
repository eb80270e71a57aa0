"""One architecture of a search space. What its genes mean belongs to the space (:mod:`libranas.spaces`)."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from libranas.core.errors import LibranasError


def frozen(value):
    """Return a gene as an immutable value: tuples for lists."""
    if isinstance(value, (list, tuple)):
        return tuple(frozen(v) for v in value)
    if isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a gene must be a number, a string or a list of them, got {type(value).__name__}")


@dataclass(frozen=True, eq=False)
class Arch:
    """An architecture: a hashable value with a canonical id.

    Parameters
    ----------
    family : family of search spaces that gives the genes their meaning, such as ``"autoformer"``
    genes : numbers, strings or sequences of them by name; for AutoFormer ``embed_dim``, ``depth``, ``num_heads`` and
        ``mlp_ratio`` (one entry a block)
    """

    family: str
    genes: Mapping

    def __post_init__(self):
        items = sorted((str(k), frozen(v)) for k, v in dict(self.genes).items())
        object.__setattr__(self, "genes", dict(items))

    def __getitem__(self, gene: str):
        return self.genes[gene]

    def __eq__(self, other):
        return isinstance(other, Arch) and self.json == other.json

    def __hash__(self):
        return hash(self.json)

    def replace(self, **genes) -> "Arch":
        """Return a copy with some genes changed."""
        return Arch(self.family, {**self.genes, **genes})

    @cached_property
    def json(self) -> str:
        """The canonical JSON text: sorted keys, no spaces."""
        return json.dumps({"family": self.family, **self.genes}, sort_keys=True, separators=(",", ":"))

    @cached_property
    def id(self) -> str:
        """The first 12 hex digits of the SHA-256 of :attr:`json`, which name this architecture everywhere.

        Among a million architectures the chance of any collision is below 0.2 %.
        """
        return hashlib.sha256(self.json.encode()).hexdigest()[:12]

    @classmethod
    def known(cls, json_text: str, id: str) -> "Arch":
        """Make an architecture from a verified file: text and id are taken as they are, genes read when asked for."""
        arch = object.__new__(_Known)
        arch.__dict__.update(json=json_text, id=id)
        return arch

    @classmethod
    def from_json(cls, text: str) -> "Arch":
        """Invert :attr:`json`; LibranasError if `text` is not a JSON object with a ``family`` and genes."""
        try:
            genes = json.loads(text)
            return cls(genes.pop("family"), genes)
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise LibranasError(
                f"Not an architecture: {text[:120]!r} ({error}).",
                'Expected JSON such as {"family":"autoformer","embed_dim":192,"depth":2,'
                '"num_heads":[3,4],"mlp_ratio":[3.5,4.0]}.',
            ) from None


class _Known(Arch):
    """An architecture whose genes are read from its text when they are asked for: most of many never are."""

    @cached_property
    def _read(self) -> Arch:
        return Arch.from_json(self.json)

    family = property(lambda self: self._read.family)
    genes = property(lambda self: self._read.genes)
