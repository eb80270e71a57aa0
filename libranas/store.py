"""The HDF5 file of scores: one a shard, and all of them merged. Specification: ``docs/store-format.md``.

Everything passes through a flat table of *nodes* (path in the file to array and attributes):
:func:`_encode` makes it from :class:`Scores`, :func:`_decode` undoes it, the content hash is taken
over it, and two files are compared by it.

Shape suffixes: A architectures, S seeds, P passes. A component has shape (A, S, *places), NaN
beyond the places that an architecture has (``axes`` says how many).
"""

import errno
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pandas as pd

from libranas.arch import Arch
from libranas.errors import LibranasError
from libranas.files import atomic_path, disk_error, plain
from libranas.scorecard import Axis, PassCost, ProxyScore, ScoreCard

FORMAT = "libranas-scores"
VERSION = 1
#: Newest version of each kind of group and data set that this reader understands.
ELEMENTS = {"group": 1, "axis": 1, "proxy": 1, "array": 1, "component": 1, "text": 1, "json": 1}
#: Arrays (A, S) of a :class:`ProxyTable` and of a :class:`PassTable`; what is said about a proxy itself.
ARRAYS, COSTS = ("value_AS", "reason_AS", "seconds_AS"), ("seconds_AS", "peak_bytes_AS")
#: Bytes that a merger holds before it writes them: many small writes take long.
AT_ONCE = 1 << 26
ABOUT, MAYBE = ("version", "orientation", "pass_name", "equation"), ("precision",)


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
    """Wall-clock seconds and peak bytes of one shared pass; see :class:`libranas.scorecard.PassCost`."""

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


# ---------------------------------------------------------------------------------------------- collect


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
    return _gather(single or [template], [arch.id for arch in archs], plain(provenance))


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


def _gather(parts: Sequence[Scores], ids: Sequence[str], provenance: dict) -> Scores:
    """Rows `ids` of the `parts` put one under the other."""
    archs = [arch for p in parts for arch in p.archs]
    row = {arch.id: a for a, arch in enumerate(archs)}
    rows = np.array([row[i] for i in ids], np.intp)

    def joined(tables, keys):
        return {key: np.concatenate([getattr(t, key) for t in tables])[rows] for key in keys}

    axes = {}
    for name in sorted({name for p in parts for name in p.axes}):
        axis_A = [axis for p in parts for axis in p.axes.get(name, (Axis((), ()),) * len(p.archs))]
        axes[name] = tuple(axis_A[a] for a in rows)
    proxies = {}
    for name, table in parts[0].proxies.items():
        tables = [p.proxies[name] for p in parts]
        components = {}
        for key, c in table.components.items():
            values = np.full((len(rows), len(parts[0].seeds), *_extent(axes, c.axes)), np.nan)
            sources = [source for t in tables for source in t.components[key].values]
            for a, b in enumerate(rows):
                values[(a, *map(slice, sources[b].shape))] = sources[b]
            components[key] = ComponentArray(values, c.axes)
        proxies[name] = replace(table, components=components, **joined(tables, ARRAYS))
    passes = {}
    for name in sorted({name for p in parts for name in p.passes}):
        blanks = [PassTable(*np.full((2, len(p.archs), len(p.seeds)), np.nan)) for p in parts]
        tables = [p.passes.get(name, blank) for p, blank in zip(parts, blanks, strict=True)]
        passes[name] = PassTable(**joined(tables, COSTS))
    return Scores(
        tuple(archs[a] for a in rows),
        seeds=parts[0].seeds,
        proxies=proxies,
        axes=axes,
        passes=passes,
        provenance=provenance,
        excluded=tuple(sorted({name for p in parts for name in p.excluded})),
        warnings=tuple(sorted({warning for p in parts for warning in p.warnings})),
        **joined(parts, ("params_A", "macs_A")),
    )


# -------------------------------------------------------------------------------------- encode, decode


class _Node(NamedTuple):
    value: np.ndarray | None  # None: a group
    attrs: dict[str, int | str]


def _node(kind: str, value: np.ndarray | None = None, **attrs) -> _Node:
    if value is not None and value.dtype.kind == "f":
        # One bit pattern for NaN: a processor's own differs from the one read back from a log.
        value = np.where(np.isnan(value), np.nan, value)
    return _Node(value, {"type": kind, "type_version": ELEMENTS[kind], **attrs})


def _array(value, dtype: str) -> _Node:
    return _node("array", np.array(value, dtype))


def _text(strings, kind: str = "text") -> _Node:
    # Fixed length: checksums of HDF5 do not reach the contents of variable-length strings.
    return _node(kind, np.array([s.encode() for s in strings], "S"))


def _encode(scores: Scores) -> dict[str, _Node]:
    A, S, tables = len(scores.archs), len(scores.seeds), scores.proxies.values()
    reasons = sorted({""}.union(*(pd.unique(t.reason_AS.ravel()) for t in tables)))
    nodes = {
        "archs": _node("group"),
        "archs/id": _text(arch.id for arch in scores.archs),
        "archs/json": _text(arch.json for arch in scores.archs),
        "archs/params": _array(scores.params_A, "<i8"),
        "archs/macs": _array(scores.macs_A, "<i8"),
        "seeds": _array(scores.seeds, "<i8"),
        "axes": _node("group"),
        "proxies": _node("group"),
        "reasons": _text(reasons),
        "excluded": _text(scores.excluded),
        "warnings": _text(scores.warnings),
        "provenance": _text([json.dumps(scores.provenance, sort_keys=True)], "json"),
        "passes": _node("group"),
        "passes/names": _text(scores.passes),
    }
    for key in COSTS:
        cost_PAS = np.array([getattr(table, key) for table in scores.passes.values()], "f8")
        nodes[f"passes/{key.removesuffix('_AS')}"] = _array(cost_PAS.reshape(len(scores.passes), A, S), "<f8")
    for name, axis_A in scores.axes.items():
        row = {axis: k for k, axis in enumerate(dict.fromkeys(axis_A))}
        nodes[f"axes/{name}"] = _node("axis")
        nodes[f"axes/{name}/index"] = _array([row[axis] for axis in axis_A], "<i8")
        nodes |= _places(f"axes/{name}", row)
    for name, t in scores.proxies.items():
        path = f"proxies/{name}"
        known = [key for key in MAYBE if getattr(t, key)]
        nodes[path] = _node("proxy", **{key: getattr(t, key) for key in (*ABOUT, *known)})
        nodes[f"{path}/value"] = _array(t.value_AS, "<f8")
        codes = pd.Index(reasons).get_indexer(t.reason_AS.ravel())
        nodes[f"{path}/reason"] = _array(codes.reshape(A, S), "<i4")
        nodes[f"{path}/seconds"] = _array(t.seconds_AS, "<f8")
        nodes[f"{path}/components"] = _node("group")
        for key, c in t.components.items():
            values = np.array(c.values, "<f8")
            nodes[f"{path}/components/{key}"] = _node("component", values, axes=json.dumps(c.axes))
    return nodes


def _places(path: str, tables: Iterable[Axis]) -> dict[str, _Node]:
    """Tables of places along an axis, one behind the other."""
    return {
        f"{path}/start": _array(np.cumsum([0] + [len(axis.names) for axis in tables]), "<i8"),
        f"{path}/names": _text(n for axis in tables for n in axis.names),
        f"{path}/depth": _array([d for axis in tables for d in axis.depth], "<f8"),
    }


def _decode(nodes: Mapping[str, _Node]) -> Scores:
    def array(path):
        return nodes[path].value

    def text(path):
        return tuple(s.decode() for s in array(path).tolist())

    def children(path):
        return {p.rpartition("/")[2]: p for p in nodes if p.rpartition("/")[0] == path}

    axes = {}
    for name, path in children("axes").items():
        tables = _tables(nodes, name)
        axes[name] = tuple(tables[k] for k in array(f"{path}/index").tolist())
    reasons = np.array(text("reasons"), object)
    proxies = {}
    for name, path in children("proxies").items():
        proxies[name] = ProxyTable(
            array(f"{path}/value"),
            reasons[array(f"{path}/reason")],
            array(f"{path}/seconds"),
            {
                key: ComponentArray(array(p), tuple(json.loads(nodes[p].attrs["axes"])))
                for key, p in children(f"{path}/components").items()
            },
            **{key: nodes[path].attrs[key] for key in ABOUT},
            **{key: nodes[path].attrs.get(key, "") for key in MAYBE},
        )
    passes = map(PassTable, array("passes/seconds"), array("passes/peak_bytes"))
    return Scores(
        tuple(map(Arch.known, text("archs/json"), text("archs/id"))),
        array("archs/params"),
        array("archs/macs"),
        tuple(array("seeds").tolist()),
        proxies,
        axes,
        dict(zip(text("passes/names"), passes, strict=True)),
        json.loads(text("provenance")[0]),
        text("excluded"),
        text("warnings"),
    )


def _content(nodes: Mapping[str, _Node]) -> dict[str, _Node]:
    """The nodes that two runs of the same work must agree on: neither costs nor provenance."""
    aside = [p for p in nodes if p.split("/")[0] in ("passes", "provenance") or p.endswith("/seconds")]
    return {path: nodes[path] for path in sorted(nodes.keys() - aside)}


def _digest(nodes: Mapping[str, _Node]) -> str:
    sha = hashlib.sha256()
    for path, (value, attrs) in _content(nodes).items():
        shape = [] if value is None else [value.dtype.str, value.shape]
        sha.update(json.dumps([path, attrs, *shape], sort_keys=True).encode() + b"\n")
        for piece in _pieces(value):
            sha.update(piece)
    return sha.hexdigest()


def _pieces(value: np.ndarray | h5py.Dataset | None) -> Iterator[bytes]:
    """The bytes of a value in C order, a part at a time where it lies in a file."""
    if isinstance(value, h5py.Dataset) and value.size:
        rows = _rows(value.shape, value.dtype)
        for start in range(0, len(value), rows):
            yield value[start : start + rows].tobytes()
    elif value is not None:
        yield value[()].tobytes()


def content_sha256(scores: Scores) -> str:
    """Hash of all that does not depend on when, where and how fast it was computed."""
    return _digest(_encode(scores))


# ------------------------------------------------------------------------------------------ read, write


def write(path: str | os.PathLike, scores: Scores) -> None:
    """Write `scores` to `path` atomically; equal scores give equal bytes.

    Raises
    ------
    LibranasError
        If the disk is full or the folder cannot be written.
    """
    nodes = _encode(scores)
    root = {"format": FORMAT, "version": VERSION, "complete": True, "content_sha256": _digest(nodes)}
    # HDF5 works in memory and the bytes are written at once: a full disk is then an ordinary error here,
    # not one in the middle of closing a file. v110 is the oldest layout whose metadata carry checksums.
    with h5py.File("scores", "w", driver="core", backing_store=False, libver=("v110", "v110")) as f:
        for name, node in nodes.items():
            _create(f, name, node)
        _set_attrs(f, root)
        f.flush()
        image = f.id.get_file_image()
    with atomic_path(path) as temporary:
        temporary.write_bytes(image)


def _rows(shape: Sequence[int], dtype: np.dtype, piece: int = 1 << 23) -> int:
    """How many entries of the first axis make a piece of so many bytes."""
    return max(1, piece * shape[0] // max(1, int(np.prod(shape)) * dtype.itemsize))


def _create(f: h5py.File, name: str, node: _Node, shape: Sequence[int] | None = None) -> None:
    """The group or data set of a node. With a `shape` it is made empty, of the type that the value has."""
    if node.value is None:
        _set_attrs(f.create_group(name), node.attrs)
        return
    value, dtype = node.value, node.value.dtype
    if dtype.kind == "S":
        dtype = h5py.string_dtype("utf-8", dtype.itemsize)
    shape = value.shape if shape is None else tuple(shape)
    bytes_, options = int(np.prod(shape)) * dtype.itemsize, {}
    if bytes_:
        # Chunks of large data are thin: the part of a chunk that is not yet full waits in a cache of 1 MB.
        axis = _axis_of_rows(name) or 0
        rest = shape[axis + 1 :]
        rows = _rows(shape[axis:], dtype, 1 << 18) if bytes_ >= 1 << 20 else shape[axis]
        options = {"fletcher32": True, "chunks": (1 if bytes_ >= 1 << 20 else shape[0],) * axis + (rows, *rest)}
        # Measured floats shrink by a tenth at a twentieth of the speed; everything else does by much.
        if bytes_ > 1 << 12 and (dtype.kind != "f" or node.attrs["type"] == "component"):
            options |= {"compression": "gzip", "compression_opts": 1, "shuffle": True}
    if shape == value.shape:
        element = f.create_dataset(name, data=value.astype(dtype), **options)
    else:
        element = f.create_dataset(name, shape, dtype, fillvalue=np.nan if dtype.kind == "f" else None, **options)
    _set_attrs(element, node.attrs)


@contextmanager
def _explained(path: str | os.PathLike) -> Iterator[None]:
    """Errors of reading a file, in words for its reader."""
    try:
        yield
    except LibranasError:
        raise
    except FileNotFoundError:
        raise LibranasError(f"{path} does not exist.", "Run the workflow stage that makes it.") from None
    except (PermissionError, IsADirectoryError) as error:
        raise LibranasError(
            f"Cannot read {path}: {os.strerror(error.errno)}.", "It must be a file of yours."
        ) from error
    except Exception as error:  # h5py raises OSError, RuntimeError, KeyError ... by where the damage is
        what = f"{path} is truncated, damaged or not a file of scores ({error})."
        raise LibranasError(what, _again(path)) from error


def _again(path: str | os.PathLike) -> str:
    return f"Delete {path} and run the same command again: the stage that made it rebuilds it."


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[tuple[h5py.File, dict[str, _Node]]]:
    """The file and its nodes, whose values are not read: checked for format and versions, with all errors explained."""
    newer = f"Update libranas. Or delete {path} and run the same command again with this one."
    with _explained(path), h5py.File(path, "r", locking=False) as f:  # never changed once written: nothing to lock
        if f.attrs.get("format") != FORMAT.encode():
            raise LibranasError(f"{path} is an HDF5 file, but not one of {FORMAT!r}.", _again(path))
        root, nodes = _attrs(f), {}
        if root["version"] > VERSION:
            raise LibranasError(f"{path} has version {root['version']}; {VERSION} is known.", newer)
        if not root["complete"]:
            raise LibranasError(f"{path} was not written to its end.", _again(path))
        f.visititems(lambda name, element: nodes.update({name: _node_of(element)}))
        for name, (_, attrs) in nodes.items():
            if attrs["type_version"] > ELEMENTS.get(attrs["type"], 0):
                kind = f"{attrs['type']!r} version {attrs['type_version']}"
                raise LibranasError(f"{path}: /{name} is of a kind not known here ({kind}).", newer)
        yield f, nodes


def _loaded(nodes: Mapping[str, _Node]) -> dict[str, _Node]:
    return {path: _Node(None if value is None else value[()], attrs) for path, (value, attrs) in nodes.items()}


def _verify(path: str | os.PathLike, f: h5py.File, nodes: Mapping[str, _Node]) -> None:
    if _digest(nodes) != _attrs(f)["content_sha256"]:
        raise LibranasError(f"{path} is damaged: its content does not match its hash.", _again(path))


def read(path: str | os.PathLike) -> Scores:
    """Read a file written by :func:`write`: whole and verified, or not at all.

    Raises
    ------
    LibranasError
        If the file is missing, truncated, damaged, not one of ours, or newer than this software.
    """
    with _opened(path) as (f, nodes):
        nodes = _loaded(nodes)
        _verify(path, f, nodes)
        return _decode(nodes)


def column(path: str | os.PathLike, proxy: str) -> pd.Series:
    """One proxy of a file as :func:`frame` has it, reading no other; checksums are checked, the hash of all is not."""
    with _opened(path) as (_, nodes):
        if (name := f"proxies/{proxy}") not in nodes:
            held = ", ".join(p.split("/")[1] for p, node in nodes.items() if node.attrs["type"] == "proxy")
            raise LibranasError(f"{path} has no proxy {proxy}.", f"It has {held}.")
        value_A, _ = _mean_of_seeds(nodes[f"{name}/value"].value[()], nodes[name].attrs["orientation"])
        index = pd.Index(np.char.decode(nodes["archs/id"].value[()], "ascii"), name="id")
        return pd.Series(value_A, index, name=proxy)


class Blocks:
    """A score file as :class:`Scores` of `rows` architectures at a time: memory does not grow with the file.

    Opening it verifies the whole file. It can be walked through several times.

    Parameters
    ----------
    components : names of components that are wanted; None for all
    """

    def __init__(self, path: str | os.PathLike, components: Collection[str] | None = None, rows: int = 20_000):
        self.path, self.components, self.rows = path, components, rows
        with _opened(path) as (f, nodes):
            _verify(path, f, nodes)
            self.length = len(nodes["archs/id"].value)

    def __iter__(self) -> Iterator[Scores]:
        with _opened(self.path) as (_, nodes):
            for start in range(0, max(1, self.length), self.rows):
                part = slice(start, start + self.rows)
                yield _decode({p: self._cut(p, node, part) for p, node in nodes.items() if self._wanted(p, node)})

    def _wanted(self, path: str, node: _Node) -> bool:
        return node.attrs["type"] != "component" or self.components is None or path.split("/")[-1] in self.components

    @staticmethod
    def _cut(path: str, node: _Node, part: slice) -> _Node:
        axis = _axis_of_rows(path)
        if node.value is None or axis is None:
            return node if node.value is None else _Node(node.value[()], node.attrs)
        return _Node(node.value[(slice(None),) * axis + (part,)], node.attrs)


def _axis_of_rows(path: str) -> int | None:
    """Which axis of a data set counts architectures."""
    top, _, rest = path.partition("/")
    if path in ("passes/seconds", "passes/peak_bytes"):
        return 1
    return 0 if (top in ("archs", "proxies") and rest) or path.endswith("/index") else None


def many(scores: "Scores | Iterable[Scores]") -> Iterable[Scores]:
    """`scores` as what is walked through: one set of them, or the blocks of a file."""
    return (scores,) if isinstance(scores, Scores) else scores


def _set_attrs(element, attrs: Mapping[str, int | str]) -> None:
    # Fixed length here too: variable-length text goes to a heap without a checksum, where one damaged
    # byte can send HDF5 into an endless loop.
    for key, value in attrs.items():
        raw = value.encode() if isinstance(value, str) else None
        dtype = "<i8" if raw is None else h5py.string_dtype("utf-8", max(1, len(raw)))
        element.attrs.create(key, value if raw is None else np.array(raw, dtype), dtype=dtype)


def _node_of(element) -> _Node:
    return _Node(element if isinstance(element, h5py.Dataset) else None, _attrs(element))


def _attrs(element) -> dict[str, int | str]:
    found = {}
    for k in range(h5py.h5a.get_num_attrs(element.id)):  # element.attrs takes four times as long, in every data set
        attribute = h5py.h5a.open(element.id, index=k)
        attribute.read(value := np.empty(attribute.shape, attribute.dtype))
        found[attribute.name.decode()] = value.item().decode() if value.dtype.kind == "S" else int(value)
    return found


# -------------------------------------------------------------------------------------- merge, compare


def merge(path: str | os.PathLike, parts: Sequence[str | os.PathLike], wanted: Iterable[str] | None = None) -> None:
    """Join score files of disjoint sets of architectures into one, in the order of the files.

    One part at a time is in memory, verified; how many there are and how large the whole is does not matter.

    Parameters
    ----------
    wanted : ids of the architectures that there must be; by default whatever there is

    Raises
    ------
    LibranasError
        If an architecture comes twice, if seeds, proxies, their versions or the conditions differ, or if there are
        other architectures than `wanted`.
    """
    if not parts:
        raise LibranasError("There are no scores to merge.", "Run the score stage first.")
    heads = [_head(part) for part in parts]
    _must_belong_together(heads, list(map(str, parts)), wanted)
    plan = _Plan.of(heads)
    if (needed := sum(os.path.getsize(part) for part in parts)) > shutil.disk_usage(Path(path).parent).free:
        raise disk_error(OSError(errno.ENOSPC, f"{needed} bytes are needed"), Path(path))
    with atomic_path(path) as temporary:
        with h5py.File(temporary, "w", libver=("v110", "v110")) as f:
            for name, (node, shape) in plan.nodes.items():
                _create(f, name, node, shape)
            start, waiting = 0, []
            for part, head in zip(parts, heads, strict=True):
                if rows := dict(plan.rows_of(head, _reread(part, head))):
                    waiting.append(rows)
                if sum(value.nbytes for held in waiting for value in held.values()) > AT_ONCE:
                    start += _put(f, waiting, start)
                    waiting.clear()
            _put(f, waiting, start)
        with h5py.File(temporary, "r+", libver=("v110", "v110")) as f:
            nodes = {}
            f.visititems(lambda name, element: nodes.update({name: _node_of(element)}))
            root = {"format": FORMAT, "version": VERSION, "complete": True, "content_sha256": _digest(nodes)}
            _set_attrs(f, root)


def _head(path: str | os.PathLike) -> dict[str, _Node]:
    """The nodes of a file without its large values: of what has a row an architecture only the ids are there."""
    with _opened(path) as (_, nodes):
        heads = {}
        for name, (value, attrs) in nodes.items():
            small = value is None or _axis_of_rows(name) is None or name == "archs/id"
            empty = None if value is None else np.empty((0, *value.shape[1:]), value.dtype)
            heads[name] = _Node(empty if not small else None if value is None else value[()], attrs)
        return heads


def _reread(path: str | os.PathLike, head: Mapping[str, _Node]) -> dict[str, _Node]:
    """All of a file whose head is known, verified."""
    with _explained(path), h5py.File(path, "r", locking=False) as f:
        nodes = {name: _Node(value if value is None else f[name][()], attrs) for name, (value, attrs) in head.items()}
        _verify(path, f, nodes)
        return nodes


def _strings(node: _Node) -> list[str]:
    return [s.decode() for s in node.value.tolist()]


def _below(nodes: Mapping[str, _Node], path: str) -> dict[str, str]:
    """Name to path of what lies directly in a group, by name."""
    return {p.rpartition("/")[2]: p for p in sorted(nodes) if p.rpartition("/")[0] == path}


def _must_agree(head: Mapping[str, _Node]) -> dict[str, str]:
    """What files must share to be merged, in words."""
    proxies = _below(head, "proxies")
    facts = {"the seeds": str(tuple(head["seeds"].value.tolist())), "the proxies": ", ".join(proxies)}
    for key, value in json.loads(_strings(head["provenance"])[0]).get("conditions", {}).items():
        facts[f"condition {key!r}"] = json.dumps(value, sort_keys=True)
    for name, path in proxies.items():
        facts |= {f"{key} of {name}": str(head[path].attrs.get(key, "")) for key in (*ABOUT, *MAYBE)}
        components = {key: head[p].attrs["axes"] for key, p in _below(head, f"{path}/components").items()}
        facts[f"components of {name}"] = str(components)
    return facts


def _must_belong_together(heads: Sequence[Mapping], names: Sequence[str], wanted: Iterable[str] | None) -> None:
    again = "Delete the files that do not belong together and run the same command again."
    filled = next((k for k, head in enumerate(heads) if len(head["archs/id"].value)), 0)
    owner, ours = {}, _must_agree(heads[filled])
    for head, name in zip(heads, names, strict=True):
        theirs = _must_agree(head)
        if not len(head["archs/id"].value):  # nothing ran there: which pass a proxy shared is not known
            theirs |= {key: ours[key] for key in theirs.keys() & ours.keys() if key.startswith("pass_name of ")}
        for key in [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]:
            found = f"{ours.get(key)} in {names[filled]} but {theirs.get(key)} in {name}"
            raise LibranasError(f"Scores cannot be merged: {key}: {found}.", again)
        for arch in _strings(head["archs/id"]):
            if arch in owner:
                raise LibranasError(f"Architecture {arch} is in {owner[arch]} and in {name}.", again)
            owner[arch] = name
    if wanted is not None and (wanted := set(wanted)) != owner.keys():
        lacking, extra = sorted(wanted - owner.keys()), sorted(owner.keys() - wanted)
        raise LibranasError(
            f"The merged files lack {len(lacking)} of the {len(wanted)} wanted architectures {lacking[:5]} "
            f"and hold {len(extra)} that are not wanted {extra[:5]}.",
            again,
        )


@dataclass(frozen=True)
class _Plan:
    """A merged file before its rows are there.

    Attributes
    ----------
    nodes : path to a node and the shape of its data set; None where the value is the whole of it
    tables : axis to row of each table of places (names and depths)
    reasons, passes : to their number in the merged file
    """

    nodes: dict[str, tuple[_Node, tuple[int, ...] | None]]
    tables: dict[str, dict[Axis, int]]
    reasons: dict[str, int]
    passes: dict[str, int]

    @classmethod
    def of(cls, heads: Sequence[Mapping[str, _Node]]) -> "_Plan":
        count = sum(len(head["archs/id"].value) for head in heads)
        filled = [head for head in heads if len(head["archs/id"].value)] or heads[:1]
        first, seeds = filled[0], len(filled[0]["seeds"].value)
        reasons = sorted(set().union(*(_strings(head["reasons"]) for head in filled)))
        passes = sorted(set().union(*(_strings(head["passes/names"]) for head in filled)))
        tables: dict[str, dict[Axis, int]] = {}
        for name in sorted(set().union(*(_below(head, "axes") for head in filled))):
            found = [axis for head in filled for axis in _tables(head, name)]
            tables[name] = {axis: k for k, axis in enumerate(dict.fromkeys(found))}
        provenance = [json.loads(_strings(head["provenance"])[0]) for head in heads]
        facts = [{key: value for key, value in p.items() if key != "conditions"} for p in provenance]
        together = {key: value for key, value in provenance[0].items() if key == "conditions"}
        together["parts"] = [x for f in facts for x in f.get("parts", [f])]
        whole = {
            "seeds": first["seeds"],
            "reasons": _text(reasons),
            "passes/names": _text(passes),
            "excluded": _text(sorted(set().union(*(_strings(head["excluded"]) for head in filled)))),
            "warnings": _text(sorted(set().union(*(_strings(head["warnings"]) for head in filled)))),
            "provenance": _text([json.dumps(together, sort_keys=True)], "json"),
        }
        for name, row in tables.items():
            whole |= {f"axes/{name}": _node("axis"), **_places(f"axes/{name}", row)}
        nodes = {path: (node, None) for path, node in whole.items()}
        for path in sorted({path for head in filled for path in head}):
            node = next(head[path] for head in filled if path in head)
            if path in nodes or path.rpartition("/")[0] in whole:
                continue
            if node.value is None:
                nodes[path] = node, None
            elif path.startswith("passes/"):
                nodes[path] = node, (len(passes), count, seeds)
            elif node.attrs["type"] == "component":
                extent = [
                    max((len(axis.names) for axis in tables[a]), default=0) for a in json.loads(node.attrs["axes"])
                ]
                nodes[path] = node, (count, seeds, *extent)
            elif node.attrs["type"] == "text":
                width = max(head[path].value.dtype.itemsize for head in filled)
                nodes[path] = _Node(np.empty(0, f"S{width}"), node.attrs), (count,)
            else:
                nodes[path] = node, (count, *node.value.shape[1:])
        for name in tables:
            nodes[f"axes/{name}/index"] = _array([], "<i8"), (count,)
        return cls(
            dict(sorted(nodes.items())),
            tables,
            {r: k for k, r in enumerate(reasons)},
            {p: k for k, p in enumerate(passes)},
        )

    def rows_of(self, head: Mapping[str, _Node], nodes: Mapping[str, _Node]) -> Iterator[tuple[str, np.ndarray]]:
        """What a part has to put into each data set, in the numbers of the merged file."""
        count = len(head["archs/id"].value)
        if not count:
            return
        code = np.array([self.reasons[reason] for reason in _strings(nodes["reasons"])], "<i4")
        for path in self.nodes:
            if (
                _axis_of_rows(path) == 0
                and not path.startswith("axes/")
                and path in nodes
                and nodes[path].value is not None
            ):
                value = nodes[path].value
                yield path, code[value] if path.endswith("/reason") else value
        for name, rows in self.tables.items():
            if f"axes/{name}/index" in nodes:
                row = np.array([rows[axis] for axis in _tables(nodes, name)])
                yield f"axes/{name}/index", row[nodes[f"axes/{name}/index"].value]
            else:
                yield f"axes/{name}/index", np.full(count, rows[Axis((), ())])
        for path in ("passes/seconds", "passes/peak_bytes"):
            value = np.full((len(self.passes), count, len(nodes["seeds"].value)), np.nan)
            value[[self.passes[name] for name in _strings(nodes["passes/names"])]] = nodes[path].value
            yield path, value


def _tables(nodes: Mapping[str, _Node], name: str) -> list[Axis]:
    """The tables of places along an axis of a part; of a part that has networks and not the axis, an empty one."""
    path = f"axes/{name}"
    if path not in nodes:
        return [Axis((), ())]
    names, depth = _strings(nodes[f"{path}/names"]), nodes[f"{path}/depth"].value.tolist()
    spans = itertools.pairwise(nodes[f"{path}/start"].value.tolist())
    return [Axis(tuple(names[i:j]), tuple(depth[i:j])) for i, j in spans]


def _put(f: h5py.File, parts: Sequence[Mapping[str, np.ndarray]], start: int) -> int:
    """Write the rows of some parts from `start` on, each data set at once; how many rows there were.

    What is narrower than its data set leaves the rest as it is: NaN.
    """
    for name in parts[0] if parts else ():
        axis, at = _axis_of_rows(name), start
        values = [part[name] for part in parts]
        widths = {value.shape[axis + 1 :] for value in values}
        for value in [np.concatenate(values, axis)] if len(widths) == 1 else values:
            rows = slice(at, at + value.shape[axis])
            f[name][(slice(None),) * axis + (rows, *(slice(0, n) for n in value.shape[axis + 1 :]))] = value
            at = rows.stop
    return sum(len(part["archs/id"]) for part in parts)


def equal_values(a: Scores, b: Scores) -> list[str]:
    """Differences between two sets of scores in words, bit for bit, costs and provenance aside.

    Empty exactly when :func:`content_sha256` is the same for both.
    """
    left, right, differences = _content(_encode(a)), _content(_encode(b)), []
    for path in sorted(left.keys() | right.keys()):
        if path not in left or path not in right:
            differences.append(f"{path}: only in the {'first' if path in left else 'second'}")
            continue
        (x, x_attrs), (y, y_attrs) = left[path], right[path]
        if x_attrs != y_attrs:
            differences.append(f"{path}: {x_attrs} and {y_attrs}")
        if x is not None and x.shape != y.shape:
            differences.append(f"{path}: shapes {x.shape} and {y.shape}")
        elif x is not None:
            unequal = x.view("<i8") != y.view("<i8") if x.dtype.kind == "f" else x != y
            for at in map(tuple, np.argwhere(unequal)[:1].tolist()):
                who = f" (architecture {a.archs[at[0]].id})" if path.startswith("proxies/") else ""
                differences.append(f"{path}: {unequal.sum()} entries; at {at}{who} {x[at]} and {y[at]}")
    return differences


# ------------------------------------------------------------------------------------------ data frames


def finite_mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean of the finite entries along `axis`; NaN where there is none."""
    finite = np.isfinite(values)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.where(finite, values, 0.0).sum(axis) / finite.sum(axis)


def _mean_of_seeds(value_AS: np.ndarray, orientation: int) -> tuple[np.ndarray, int]:
    """What :func:`frame` says of a proxy, and how many values it left out."""
    bad_AS = ~np.isfinite(value_AS)
    none_A = bad_AS.all(axis=1)
    alike_A = np.where((value_AS == value_AS[:, :1]).all(axis=1), value_AS[:, 0], np.nan)
    return np.where(none_A, alike_A, finite_mean(value_AS, 1)) * orientation, int(bad_AS[~none_A].sum())


def frame(scores: Scores | Iterable[Scores]) -> pd.DataFrame:
    """One row an architecture: ``params``, ``macs`` and every proxy, higher is better, float64.

    A proxy is the mean over its finite seeds; where no seed is finite it is the infinity that they share
    or else NaN. ``attrs["ignored_seeds"]`` counts, for each proxy, non-finite values that were left out of
    a mean. A proxy called ``params`` takes the place of the column of that name.
    """
    parts, ignored = [], {}
    for part in many(scores):
        columns = {"params": part.params_A.astype("f8"), "macs": part.macs_A.astype("f8")}
        for name, table in part.proxies.items():
            columns[name], count = _mean_of_seeds(table.value_AS, table.orientation)
            ignored[name] = ignored.get(name, 0) + count
        parts.append(pd.DataFrame(columns, index=pd.Index([arch.id for arch in part.archs], name="id")))
    out = parts[0] if len(parts) == 1 else pd.concat(parts)
    out.attrs["ignored_seeds"] = ignored
    return out


def costs(scores: Scores | Iterable[Scores]) -> pd.DataFrame:
    """What the pass of each proxy costs.

    Returns
    -------
    DataFrame, a row a proxy: ``proxy``, ``pass``, ``seconds`` and ``peak_bytes`` (medians over networks and
    seeds; NaN where nothing was measured), ``shared`` (number of proxies of these scores that share the pass
    and so its cost, this one included)
    """
    measured: dict[tuple[str, str], list[np.ndarray]] = {}
    for part in many(scores):
        used = {proxy: table.pass_name for proxy, table in part.proxies.items()}
        for name in set(used.values()) & part.passes.keys():
            for key in COSTS:
                measured.setdefault((name, key), []).append(getattr(part.passes[name], key).ravel())
    names = list(used.values())
    medians = {k: pd.Series(np.concatenate(values)).median() for k, values in measured.items()}
    rows = [
        (proxy, name, *(medians.get((name, key), np.nan) for key in COSTS), names.count(name))
        for proxy, name in used.items()
    ]
    return pd.DataFrame(rows, columns=["proxy", "pass", "seconds", "peak_bytes", "shared"])


def nonfinite(scores: Scores | Iterable[Scores]) -> pd.DataFrame:
    """How many values (one an architecture and seed) are not finite: ``proxy``, ``reason``, ``count``."""
    rows = [
        (name, reason)
        for part in many(scores)
        for name, table in part.proxies.items()
        for reason in table.reason_AS[~np.isfinite(table.value_AS)]
    ]
    return pd.DataFrame(rows, columns=["proxy", "reason"]).value_counts(sort=False).reset_index()


def check_failures(scores: Scores | Iterable[Scores], allowed: float) -> pd.DataFrame:
    """Non-finite scores by proxy and reason; an error if any proxy fails on more than `allowed` of the networks.

    Parameters
    ----------
    allowed : float
        Share in [0, 1]; config key ``score.max_failed``.
    """
    if not 0 <= allowed <= 1:
        raise ValueError(f"allowed must be a share in [0, 1], got {allowed}")
    table = nonfinite(scores)
    cells = sum(len(part.archs) * len(part.seeds) for part in many(scores))
    for proxy, part in table.groupby("proxy"):
        if (failed := part["count"].sum()) > allowed * cells:
            raise LibranasError(
                f"Proxy {proxy} is not finite for {failed} of {cells} networks: {'; '.join(part['reason'])}.",
                f"Take {proxy} out of `score.proxies`, or allow it with `score.max_failed` (now {allowed}): such "
                "scores are kept as NaN, counted in the report and rank last.",
            )
    return table
