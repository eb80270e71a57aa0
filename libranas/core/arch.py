"""One architecture of a search space: a frozen, hashable value with a canonical id.

An architecture is data, never a state of a model. What it means (which genes exist, how a network
is built from them) belongs to its search space; see :mod:`libranas.spaces`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from libranas.core.errors import LibranasError


def frozen(value):
    """A gene as an immutable value: tuples for lists."""
    if isinstance(value, (list, tuple)):
        return tuple(frozen(v) for v in value)
    if isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a gene must be a number, a string or a list of them, got {type(value).__name__}")


@dataclass(frozen=True, eq=False)
class Arch:
    """An architecture: the family of its space and its genes.

    Parameters
    ----------
    family : str
        Family of search spaces that gives the genes their meaning, e.g. ``"autoformer"``.
    genes : mapping of str to number, string or sequence of them
        For AutoFormer: ``embed_dim``, ``depth``, ``num_heads`` and ``mlp_ratio`` (one entry a block).

    Notes
    -----
    ``id`` is the first 12 hex digits of the SHA-256 of the canonical JSON, so equal architectures have
    equal ids in every process and on every machine. Twelve digits (48 bits) keep the chance of any
    collision among a million architectures below 0.2 %; `merge` stages check ids for clashes.
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
        """A copy with some genes changed."""
        return Arch(self.family, {**self.genes, **genes})

    @cached_property
    def json(self) -> str:
        """Canonical JSON text: sorted keys, no spaces."""
        return json.dumps({"family": self.family, **self.genes}, sort_keys=True, separators=(",", ":"))

    @cached_property
    def id(self) -> str:
        """Twelve hex digits that name this architecture everywhere."""
        return hashlib.sha256(self.json.encode()).hexdigest()[:12]

    @classmethod
    def known(cls, json_text: str, id: str) -> "Arch":
        """An architecture from a verified file: text and id are taken as they are, genes read when asked for."""
        arch = object.__new__(_Known)
        arch.__dict__.update(json=json_text, id=id)
        return arch

    @classmethod
    def from_json(cls, text: str) -> "Arch":
        """Inverse of :attr:`json`.

        Raises
        ------
        LibranasError
            If `text` is not a JSON object with a ``family`` and genes.
        """
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
