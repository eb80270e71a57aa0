"""Scores in memory, gathered from score cards. Suffixes: A architectures, S seeds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.core.files import plain
from libranas.core.scorecard import Axis, PassCost, ProxyScore, ScoreCard

#: Arrays (A, S) of a :class:`PassTable`.
COSTS = ("seconds_AS", "peak_bytes_AS")


@dataclass(frozen=True, eq=False)
class ComponentArray:
    """One component of a proxy and the names of its axes.

    ``values`` has shape (A, S, *places), NaN beyond the places that an architecture has (``Scores.axes``).
    """

    values: np.ndarray
    axes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ProxyTable:
    """One proxy on all architectures: raw values, why a value is missing (``""``: it is not), seconds of its pass.

    ``value_AS`` is not oriented: multiply by ``orientation`` (+1 or -1) for "higher is better". ``precision`` is that
    of the pass (``""``: not known, the file is older than the attribute).
    """

    value_AS: np.ndarray
    reason_AS: np.ndarray
    seconds_AS: np.ndarray
    components: dict[str, ComponentArray]
    version: int
    orientation: int
    pass_name: str
    equation: str
    precision: str = ""


@dataclass(frozen=True, eq=False)
class PassTable:
    """Wall-clock seconds and peak bytes of one shared pass; see :class:`libranas.core.scorecard.PassCost`."""

    seconds_AS: np.ndarray
    peak_bytes_AS: np.ndarray


@dataclass(frozen=True, eq=False)
class Scores:
    """Content of one score file.

    Attributes
    ----------
    archs : tuple of Arch, length A
    params_A, macs_A : int64 arrays, closed-form parameters and multiply-accumulates of one image
    seeds : indices of the initialisations, length S
    proxies : name to :class:`ProxyTable`, sorted by name
    axes : axis name to one :class:`Axis` an architecture
    passes : name to :class:`PassTable`
    provenance : JSON-ready facts; ``conditions`` in it must agree between merged files
    excluded : names of parameters that no proxy counted, in any of the networks
    warnings : sentences for the reader
    """

    archs: tuple[Arch, ...]
    params_A: np.ndarray
    macs_A: np.ndarray
    seeds: tuple[int, ...]
    proxies: dict[str, ProxyTable]
    axes: dict[str, tuple[Axis, ...]]
    passes: dict[str, PassTable]
    provenance: dict
    excluded: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def many(scores: "Scores | Iterable[Scores]") -> Iterable[Scores]:
    """`scores` as what is walked through: one set of them, or the blocks of a file."""
    return (scores,) if isinstance(scores, Scores) else scores


def collect(
    archs: Sequence[Arch],
    params: Sequence[int],
    macs: Sequence[int],
    seeds: Sequence[int],
    cards: Mapping[tuple[str, int], ScoreCard],
    proxy_info: Mapping[str, Mapping],
    provenance: Mapping,
) -> Scores:
    """Gather score cards into arrays.

    Parameters
    ----------
    cards : (architecture id, seed index) to ScoreCard; one for every architecture and seed
    proxy_info : proxy name to ``version`` (int), ``orientation`` (+1 or -1), ``pass``, ``equation``,
        ``component_axes`` (component name to a tuple of axis names) and, if known, ``precision``
    provenance : JSON-ready; its ``conditions`` must agree between files that are merged later

    Raises
    ------
    LibranasError
        If a card, or a proxy on a card, is missing.
    ValueError
        If cards contradict each other or the declared components.
    """
    for arch in archs:
        for seed in seeds:
            lacking = [p for p in proxy_info if p not in getattr(cards.get((arch.id, seed)), "scores", {})]
            if lacking:
                raise LibranasError(
                    f"Architecture {arch.id} has no score by {', '.join(lacking)} with seed {seed}.",
                    "Run the score stage again: it computes what its progress log does not hold.",
                )
    every = [cards[arch.id, seed] for arch in archs for seed in seeds]
    shape = len(archs), len(seeds)

    def array(values: Iterable, dtype="f8") -> np.ndarray:
        return np.array(list(values), dtype).reshape(shape)

    axes = {}
    for name in sorted({name for card in every for name in card.axes}):
        axes[name] = tuple(_shared_axis(name, arch, [cards[arch.id, seed] for seed in seeds]) for arch in archs)

    def component(name: str, key: str, places: Sequence[str]) -> ComponentArray:
        counts = [[len(axis.names) for axis in axes[place]] if place in axes else [0] * shape[0] for place in places]
        values = np.full((*shape, *(max(count_A, default=0) for count_A in counts)), np.nan)
        for (a, arch), (s, seed) in product(enumerate(archs), enumerate(seeds)):
            own = tuple(count_A[a] for count_A in counts)
            # a proxy that failed may have no components
            found = np.asarray(cards[arch.id, seed].scores[name].components.get(key, np.full(own, np.nan)), "f8")
            if found.shape != own:
                raise ValueError(f"architecture {arch.id}: {name}, {key} has not shape {own}")
            values[(a, s, *map(slice, own))] = found
        return ComponentArray(values, tuple(places))

    proxies = {}
    for name, info in sorted(proxy_info.items()):
        scores = [card.scores[name] for card in every]
        undeclared = {key for score in scores for key in score.components} - info["component_axes"].keys()
        if undeclared:
            raise ValueError(f"{name} does not declare {undeclared}")
        proxies[name] = ProxyTable(
            array(score.value for score in scores),
            array((_reason(score) for score in scores), object),
            array(score.seconds for score in scores),
            {key: component(name, key, places) for key, places in sorted(info["component_axes"].items())},
            int(info["version"]),
            int(info["orientation"]),
            str(info["pass"]),
            str(info["equation"]),
            info.get("precision", ""),
        )
    passes = {}
    for name in sorted({name for card in every for name in card.passes}):
        costs = [card.passes.get(name, PassCost(np.nan)) for card in every]
        passes[name] = PassTable(array(cost.seconds for cost in costs), array(cost.peak_bytes for cost in costs))
    return Scores(
        tuple(archs),
        np.array(params, "i8"),
        np.array(macs, "i8"),
        tuple(map(int, seeds)),
        proxies,
        axes,
        passes,
        plain(provenance),
        tuple(sorted({name for card in every for name in card.excluded})),
        tuple(sorted({warning for card in every for warning in card.warnings})),
    )


def _shared_axis(name: str, arch: Arch, cards: Sequence[ScoreCard]) -> Axis:
    """The places of an architecture along an axis, on which its seeds agree; none if it has no such axis."""
    found = {card.axes[name] for card in cards if name in card.axes} or {Axis((), ())}
    if len(found) > 1:
        raise ValueError(f"architecture {arch.id}: its seeds disagree about the axis {name!r}")
    return found.pop()


def _reason(score: ProxyScore) -> str:
    return score.reason or ("" if np.isfinite(score.value) else f"the proxy returned {score.value}")
