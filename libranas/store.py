"""The HDF5 file of scores: one a shard, and all of them merged. Specification: ``docs/store-format.md``.

Everything passes through a flat table of *nodes* (path in the file to array and attributes):
:func:`_encode` makes it from :class:`Scores`, :func:`_decode` undoes it, the content hash is taken
over it, and two files are compared by it.

Shape suffixes: A architectures, S seeds, P passes. A component has shape (A, S, *places), NaN
beyond the places that an architecture has (``axes`` says how many).
"""

import hashlib
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pandas as pd

from libranas.arch import Arch
from libranas.errors import LibranasError
from libranas.files import atomic_path, plain
from libranas.scorecard import Axis, PassCost, ProxyScore, ScoreCard

FORMAT = "libranas-scores"
VERSION = 1
#: Newest version of each kind of group and data set that this reader understands.
ELEMENTS = {"group": 1, "axis": 1, "proxy": 1, "array": 1, "component": 1, "text": 1, "json": 1}
#: Arrays (A, S) of a :class:`ProxyTable` and of a :class:`PassTable`; what is said about a proxy itself.
ARRAYS, COSTS = ("value_AS", "reason_AS", "seconds_AS"), ("seconds_AS", "peak_bytes_AS")
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
    reasons = sorted({""}.union(*(t.reason_AS.ravel() for t in tables)))
    code = {reason: k for k, reason in enumerate(reasons)}
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
        nodes[f"axes/{name}/start"] = _array(np.cumsum([0] + [len(axis.names) for axis in row]), "<i8")
        nodes[f"axes/{name}/names"] = _text(n for axis in row for n in axis.names)
        nodes[f"axes/{name}/depth"] = _array([d for axis in row for d in axis.depth], "<f8")
    for name, t in scores.proxies.items():
        path = f"proxies/{name}"
        known = [key for key in MAYBE if getattr(t, key)]
        nodes[path] = _node("proxy", **{key: getattr(t, key) for key in (*ABOUT, *known)})
        nodes[f"{path}/value"] = _array(t.value_AS, "<f8")
        codes = [code[reason] for reason in t.reason_AS.ravel()]
        nodes[f"{path}/reason"] = _array(np.reshape(codes, (A, S)), "<i4")
        nodes[f"{path}/seconds"] = _array(t.seconds_AS, "<f8")
        nodes[f"{path}/components"] = _node("group")
        for key, c in t.components.items():
            values = np.array(c.values, "<f8")
            nodes[f"{path}/components/{key}"] = _node("component", values, axes=json.dumps(c.axes))
    return nodes


def _decode(nodes: Mapping[str, _Node]) -> Scores:
    def array(path):
        return nodes[path].value

    def text(path):
        return tuple(s.decode() for s in array(path).tolist())

    def children(path):
        return {p.rpartition("/")[2]: p for p in nodes if p.rpartition("/")[0] == path}

    axes = {}
    for name, path in children("axes").items():
        names, depth = text(f"{path}/names"), array(f"{path}/depth").tolist()
        spans = itertools.pairwise(array(f"{path}/start").tolist())
        tables = [Axis(names[i:j], tuple(depth[i:j])) for i, j in spans]
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
        tuple(Arch.from_json(s) for s in text("archs/json")),
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
        sha.update(b"" if value is None else value.tobytes())
    return sha.hexdigest()


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
        for name, (value, attrs) in nodes.items():
            if value is None:
                element = f.create_group(name)
            else:
                small = value.nbytes < 1 << 20
                options = {"fletcher32": True, "chunks": value.shape if small else True} if value.size else {}
                if value.nbytes > 1 << 12:
                    options |= {"compression": "gzip", "compression_opts": 4, "shuffle": True}
                if value.dtype.kind == "S":
                    value = value.astype(h5py.string_dtype("utf-8", value.dtype.itemsize))
                element = f.create_dataset(name, data=value, **options)
            _set_attrs(element, attrs)
        _set_attrs(f, root)
        f.flush()
        image = f.id.get_file_image()
    with atomic_path(path) as temporary:
        temporary.write_bytes(image)


def read(path: str | os.PathLike) -> Scores:
    """Read a file written by :func:`write`: whole and verified, or not at all.

    Raises
    ------
    LibranasError
        If the file is missing, truncated, damaged, not one of ours, or newer than this software.
    """
    path = Path(path)
    again = f"Delete {path} and run the same command again: the stage that made it rebuilds it."
    newer = f"Update libranas. Or delete {path} and run the same command again with this one."
    try:
        with h5py.File(path, "r", locking=False) as f:  # never changed once written: nothing to lock
            if f.attrs.get("format") != FORMAT.encode():
                raise LibranasError(f"{path} is an HDF5 file, but not one of {FORMAT!r}.", again)
            root, nodes = _attrs(f), {}
            if root["version"] > VERSION:
                raise LibranasError(f"{path} has version {root['version']}; {VERSION} is known.", newer)
            if not root["complete"]:
                raise LibranasError(f"{path} was not written to its end.", again)
            f.visititems(lambda name, element: nodes.update({name: _load(element)}))
        for name, (_, attrs) in nodes.items():
            if attrs["type_version"] > ELEMENTS.get(attrs["type"], 0):
                kind = f"{attrs['type']!r} version {attrs['type_version']}"
                raise LibranasError(f"{path}: /{name} is of a kind not known here ({kind}).", newer)
        if _digest(nodes) != root["content_sha256"]:
            raise LibranasError(f"{path} is damaged: its content does not match its hash.", again)
        return _decode(nodes)
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
        raise LibranasError(what, again) from error


def _set_attrs(element, attrs: Mapping[str, int | str]) -> None:
    # Fixed length here too: variable-length text goes to a heap without a checksum, where one damaged
    # byte can send HDF5 into an endless loop.
    for key, value in attrs.items():
        raw = value.encode() if isinstance(value, str) else None
        dtype = "<i8" if raw is None else h5py.string_dtype("utf-8", max(1, len(raw)))
        element.attrs.create(key, value if raw is None else np.array(raw, dtype), dtype=dtype)


def _load(element) -> _Node:
    return _Node(element[()] if isinstance(element, h5py.Dataset) else None, _attrs(element))


def _attrs(element) -> dict[str, int | str]:
    return {key: v.decode() if isinstance(v, bytes) else int(v) for key, v in element.attrs.items()}


# -------------------------------------------------------------------------------------- merge, compare


def merge(parts: Sequence[Scores], order: Sequence[str] | None = None, names: Sequence[str] | None = None) -> Scores:
    """Join the scores of disjoint sets of architectures.

    Parameters
    ----------
    order : ids of all architectures in the order wanted (default: as they come)
    names : what to call the parts in errors, e.g. their paths

    Raises
    ------
    LibranasError
        If an architecture comes twice, if seeds, proxies, their versions or the conditions differ, or if
        `order` names other architectures.
    """
    names = list(map(str, names)) if names else [f"part {k}" for k in range(1, len(parts) + 1)]
    again = "Delete the files that do not belong together and run the same command again."
    if not parts:
        raise LibranasError("There are no scores to merge.", "Run the score stage first.")
    filled = next((k for k, part in enumerate(parts) if part.archs), 0)
    owner, ours = {}, _must_agree(parts[filled])
    for part, name in zip(parts, names, strict=True):
        theirs = _must_agree(part)
        if not part.archs:  # nothing ran there: which pass a proxy shared is not known
            theirs |= {key: ours[key] for key in theirs.keys() & ours.keys() if key.startswith("pass_name of ")}
        for key in [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]:
            found = f"{ours.get(key)} in {names[filled]} but {theirs.get(key)} in {name}"
            raise LibranasError(f"Scores cannot be merged: {key}: {found}.", again)
        for arch in part.archs:
            if arch.id in owner:
                raise LibranasError(f"Architecture {arch.id} is in {owner[arch.id]} and in {name}.", again)
            owner[arch.id] = name
    order = list(owner) if order is None else list(order)
    if sorted(order) != sorted(owner):
        lacking, extra = sorted(set(order) - set(owner)), sorted(set(owner) - set(order))
        raise LibranasError(
            f"The merged files lack {len(lacking)} of the {len(order)} wanted architectures {lacking[:5]} "
            f"and hold {len(extra)} that are not wanted {extra[:5]}.",
            again,
        )
    conditions = {key: value for key, value in parts[0].provenance.items() if key == "conditions"}
    facts = [{key: value for key, value in p.provenance.items() if key != "conditions"} for p in parts]
    provenance = {**conditions, "parts": [x for f in facts for x in f.get("parts", [f])]}
    return _gather([p for p in parts if p.archs] or parts[:1], order, provenance)


def _must_agree(scores: Scores) -> dict[str, str]:
    """What files must share to be merged, in words."""
    facts = {"the seeds": str(scores.seeds), "the proxies": ", ".join(scores.proxies)}
    for key, value in scores.provenance.get("conditions", {}).items():
        facts[f"condition {key!r}"] = json.dumps(value, sort_keys=True)
    for name, table in scores.proxies.items():
        facts |= {f"{key} of {name}": str(getattr(table, key)) for key in (*ABOUT, *MAYBE)}
        facts[f"components of {name}"] = str({key: c.axes for key, c in table.components.items()})
    return facts


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


def frame(scores: Scores) -> pd.DataFrame:
    """One row an architecture: ``params``, ``macs`` and every proxy, higher is better, float64.

    A proxy is the mean over its finite seeds; where no seed is finite it is the infinity that they share
    or else NaN. ``attrs["ignored_seeds"]`` counts, for each proxy, non-finite values that were left out of
    a mean. A proxy called ``params`` takes the place of the column of that name.
    """
    columns, ignored = {"params": scores.params_A.astype("f8"), "macs": scores.macs_A.astype("f8")}, {}
    for name, table in scores.proxies.items():
        value_AS, bad_AS = table.value_AS, ~np.isfinite(table.value_AS)
        none_A = bad_AS.all(axis=1)
        alike_A = np.where((value_AS == value_AS[:, :1]).all(axis=1), value_AS[:, 0], np.nan)
        columns[name] = np.where(none_A, alike_A, finite_mean(value_AS, 1)) * table.orientation
        ignored[name] = int(bad_AS[~none_A].sum())
    out = pd.DataFrame(columns, index=pd.Index([arch.id for arch in scores.archs], name="id"))
    out.attrs["ignored_seeds"] = ignored
    return out


def costs(scores: Scores) -> pd.DataFrame:
    """What the pass of each proxy costs.

    Returns
    -------
    DataFrame, a row a proxy: ``proxy``, ``pass``, ``seconds`` and ``peak_bytes`` (medians over networks and
    seeds; NaN where nothing was measured), ``shared`` (number of proxies of these scores that share the pass
    and so its cost, this one included)
    """
    names = [table.pass_name for table in scores.proxies.values()]
    rows = []
    for proxy, name in zip(scores.proxies, names, strict=True):
        measured = [getattr(scores.passes[name], key) if name in scores.passes else np.array([]) for key in COSTS]
        medians = [pd.Series(values_AS.ravel()).median() for values_AS in measured]
        rows.append((proxy, name, *medians, names.count(name)))
    return pd.DataFrame(rows, columns=["proxy", "pass", "seconds", "peak_bytes", "shared"])


def nonfinite(scores: Scores) -> pd.DataFrame:
    """How many values (one an architecture and seed) are not finite: ``proxy``, ``reason``, ``count``."""
    rows = [
        (name, reason)
        for name, table in scores.proxies.items()
        for reason in table.reason_AS[~np.isfinite(table.value_AS)]
    ]
    return pd.DataFrame(rows, columns=["proxy", "reason"]).value_counts(sort=False).reset_index()


def check_failures(scores: Scores, allowed: float) -> pd.DataFrame:
    """Non-finite scores by proxy and reason; an error if any proxy fails on more than `allowed` of the networks.

    Parameters
    ----------
    allowed : float
        Share in [0, 1]; config key ``score.max_failed``.
    """
    if not 0 <= allowed <= 1:
        raise ValueError(f"allowed must be a share in [0, 1], got {allowed}")
    table = nonfinite(scores)
    cells = len(scores.archs) * len(scores.seeds)
    for proxy, part in table.groupby("proxy"):
        if (failed := part["count"].sum()) > allowed * cells:
            raise LibranasError(
                f"Proxy {proxy} is not finite for {failed} of {cells} networks: {'; '.join(part['reason'])}.",
                f"Take {proxy} out of `score.proxies`, or allow it with `score.max_failed` (now {allowed}): such "
                "scores are kept as NaN, counted in the report and rank last.",
            )
    return table
