"""Scores in memory, gathered from score cards.

Shape suffixes: A architectures, S seeds. A component has shape (A, S, *places), NaN beyond the places that an
architecture has (``axes`` says how many).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.core.files import plain
from libranas.core.scorecard import Axis, PassCost, ProxyScore, ScoreCard

#: Arrays (A, S) of a :class:`ProxyTable` and of a :class:`PassTable`.
ARRAYS, COSTS = ("value_AS", "reason_AS", "seconds_AS"), ("seconds_AS", "peak_bytes_AS")


@dataclass(frozen=True, eq=False)
class ComponentArray:
    """One component of a proxy: ``values`` of shape (A, S, *places) and the names of its axes."""

    values: np.ndarray
    axes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ProxyTable:
    """One proxy on all architectures: raw values, why a value is missing (``""``: it is not), seconds.

    ``value_AS`` is not oriented: multiply by ``orientation`` (+1 or -1) for "higher is better".
    ``seconds_AS`` is the time of the pass that the proxy shared with others, ``precision`` what that pass was
    computed in (``""``: not known, the file is older than the attribute).
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
    """What one score file holds.

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
    seeds, single = tuple(map(int, seeds)), []
    for arch, size, mac in zip(archs, params, macs, strict=True):
        for seed in seeds:
            lacking = [p for p in proxy_info if p not in getattr(cards.get((arch.id, seed)), "scores", {})]
            if lacking:
                raise LibranasError(
                    f"Architecture {arch.id} has no score by {', '.join(lacking)} with seed {seed}.",
                    "Run the score stage again: it computes what its progress log does not hold.",
                )
        single.append(_one(arch, size, mac, seeds, [cards[arch.id, seed] for seed in seeds], proxy_info))
    # An empty shard still says which seeds and proxies it would have held.
    card = ScoreCard({name: ProxyScore(np.nan) for name in proxy_info}, {}, {})
    template = _one(Arch("", {}), 0, 0, seeds, [card] * len(seeds), proxy_info)
    return _gather(single or [template], len(archs), plain(provenance))


def _one(arch, params, macs, seeds, cards: Sequence[ScoreCard], proxy_info: Mapping) -> Scores:
    """The scores of a single architecture (A = 1: nothing to pad)."""
    axes, proxies, passes = {}, {}, {}
    for name, axis in (item for card in cards for item in card.axes.items()):
        if axes.setdefault(name, (axis,)) != (axis,):
            raise ValueError(f"architecture {arch.id}: its seeds disagree about the axis {name!r}")
    for name, info in sorted(proxy_info.items()):
        scores = [card.scores[name] for card in cards]
        components = {}
        for key, places in sorted(info["component_axes"].items()):
            absent = np.full(_extent(axes, places), np.nan)  # a proxy that failed may have no components
            arrays = [np.asarray(score.components.get(key, absent), "f8") for score in scores]
            if any(array.shape != absent.shape for array in arrays):
                raise ValueError(f"architecture {arch.id}: {name}, {key} has not shape {absent.shape}")
            components[key] = ComponentArray(np.array([arrays]), tuple(places))
        undeclared = {key for score in scores for key in score.components} - components.keys()
        if undeclared:
            raise ValueError(f"architecture {arch.id}: {name} does not declare {undeclared}")
        proxies[name] = ProxyTable(
            np.array([[score.value for score in scores]], "f8"),
            np.array([[_reason(score) for score in scores]], object),
            np.array([[score.seconds for score in scores]], "f8"),
            components,
            *(int(info["version"]), int(info["orientation"]), str(info["pass"]), str(info["equation"])),
            info.get("precision", ""),
        )
    for name in {name for card in cards for name in card.passes}:
        costs = [card.passes.get(name, PassCost(np.nan)) for card in cards]
        seconds, peaks = np.array([(cost.seconds, cost.peak_bytes) for cost in costs], "f8").T
        passes[name] = PassTable(seconds[None], peaks[None])
    excluded = tuple(name for card in cards for name in card.excluded)
    warnings = tuple(warning for card in cards for warning in card.warnings)
    sizes = np.array([params], "i8"), np.array([macs], "i8")
    return Scores((arch,), *sizes, seeds, proxies, axes, passes, {}, excluded, warnings)


def _reason(score: ProxyScore) -> str:
    return score.reason or ("" if np.isfinite(score.value) else f"the proxy returned {score.value}")


def _extent(axes: Mapping, names: Sequence[str]) -> tuple[int, ...]:
    """Places that components along the axes `names` need to have room for every architecture."""
    return tuple(max((len(axis.names) for axis in axes.get(name, ())), default=0) for name in names)


def _gather(single: Sequence[Scores], count: int, provenance: dict) -> Scores:
    """The first `count` of scores of one architecture each, put one under the other."""

    def joined(tables, keys):
        return {key: np.concatenate([getattr(t, key) for t in tables])[:count] for key in keys}

    axes = {}
    for name in sorted({name for p in single for name in p.axes}):
        axes[name] = tuple(p.axes.get(name, (Axis((), ()),))[0] for p in single)[:count]
    proxies = {}
    for name, table in single[0].proxies.items():
        tables = [p.proxies[name] for p in single]
        components = {}
        for key, c in table.components.items():
            values = np.full((count, len(single[0].seeds), *_extent(axes, c.axes)), np.nan)
            for row, one in zip(values, tables, strict=False):  # of the template there may be no row
                part = one.components[key].values[0]
                row[tuple(map(slice, part.shape))] = part
            components[key] = ComponentArray(values, c.axes)
        proxies[name] = replace(table, components=components, **joined(tables, ARRAYS))
    passes = {}
    for name in sorted({name for p in single for name in p.passes}):
        blank = PassTable(*np.full((2, 1, len(single[0].seeds)), np.nan))
        passes[name] = PassTable(**joined([p.passes.get(name, blank) for p in single], COSTS))
    return Scores(
        tuple(p.archs[0] for p in single)[:count],
        seeds=single[0].seeds,
        proxies=proxies,
        axes=axes,
        passes=passes,
        provenance=provenance,
        excluded=tuple(sorted({name for p in single for name in p.excluded})),
        warnings=tuple(sorted({warning for p in single for warning in p.warnings})),
        **joined(single, ("params_A", "macs_A")),
    )
