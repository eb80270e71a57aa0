"""Scores as a flat table of nodes: path in the file to array and attributes.

Suffixes: A architectures, S seeds, P passes.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import h5py
import numpy as np
import pandas as pd

from libranas.core.arch import Arch
from libranas.core.scorecard import Axis
from libranas.scores.table import COSTS, ComponentArray, PassTable, ProxyTable, Scores

#: Newest version of each kind of group and data set that this reader understands.
ELEMENTS = {"group": 1, "axis": 1, "proxy": 1, "array": 1, "component": 1, "text": 1, "json": 1}
#: What is said about a proxy itself.
ABOUT, MAYBE = ("version", "orientation", "pass_name", "equation"), ("precision",)


class Node(NamedTuple):
    value: np.ndarray | None  # None: a group
    attrs: dict[str, int | str]


def make_node(kind: str, value: np.ndarray | None = None, **attrs) -> Node:
    if value is not None and value.dtype.kind == "f":
        # One bit pattern for NaN: a processor's own differs from the one read back from a log.
        value = np.where(np.isnan(value), np.nan, value)
    return Node(value, {"type": kind, "type_version": ELEMENTS[kind], **attrs})


def array_node(value, dtype: str) -> Node:
    return make_node("array", np.array(value, dtype))


def text_node(strings, kind: str = "text") -> Node:
    # Fixed length: checksums of HDF5 do not reach the contents of variable-length strings.
    return make_node(kind, np.array([s.encode() for s in strings], "S"))


def encode(scores: Scores) -> dict[str, Node]:
    A, S, tables = len(scores.archs), len(scores.seeds), scores.proxies.values()
    reasons = sorted({""}.union(*(pd.unique(t.reason_AS.ravel()) for t in tables)))
    nodes = {
        "archs": make_node("group"),
        "archs/id": text_node(arch.id for arch in scores.archs),
        "archs/json": text_node(arch.json for arch in scores.archs),
        "archs/params": array_node(scores.params_A, "<i8"),
        "archs/macs": array_node(scores.macs_A, "<i8"),
        "seeds": array_node(scores.seeds, "<i8"),
        "axes": make_node("group"),
        "proxies": make_node("group"),
        "reasons": text_node(reasons),
        "excluded": text_node(scores.excluded),
        "warnings": text_node(scores.warnings),
        "provenance": text_node([json.dumps(scores.provenance, sort_keys=True)], "json"),
        "passes": make_node("group"),
        "passes/names": text_node(scores.passes),
    }
    for key in COSTS:
        cost_PAS = np.array([getattr(table, key) for table in scores.passes.values()], "f8")
        nodes[f"passes/{key.removesuffix('_AS')}"] = array_node(cost_PAS.reshape(len(scores.passes), A, S), "<f8")
    for name, axis_A in scores.axes.items():
        row = {axis: k for k, axis in enumerate(dict.fromkeys(axis_A))}
        nodes[f"axes/{name}"] = make_node("axis")
        nodes[f"axes/{name}/index"] = array_node([row[axis] for axis in axis_A], "<i8")
        nodes |= places_of(f"axes/{name}", row)
    for name, t in scores.proxies.items():
        path = f"proxies/{name}"
        known = [key for key in MAYBE if getattr(t, key)]
        nodes[path] = make_node("proxy", **{key: getattr(t, key) for key in (*ABOUT, *known)})
        nodes[f"{path}/value"] = array_node(t.value_AS, "<f8")
        codes = pd.Index(reasons).get_indexer(t.reason_AS.ravel())
        nodes[f"{path}/reason"] = array_node(codes.reshape(A, S), "<i4")
        nodes[f"{path}/seconds"] = array_node(t.seconds_AS, "<f8")
        nodes[f"{path}/components"] = make_node("group")
        for key, c in t.components.items():
            values = np.array(c.values, "<f8")
            nodes[f"{path}/components/{key}"] = make_node("component", values, axes=json.dumps(c.axes))
    return nodes


def places_of(path: str, tables: Iterable[Axis]) -> dict[str, Node]:
    """Tables of places along an axis, one behind the other."""
    return {
        f"{path}/start": array_node(np.cumsum([0] + [len(axis.names) for axis in tables]), "<i8"),
        f"{path}/names": text_node(n for axis in tables for n in axis.names),
        f"{path}/depth": array_node([d for axis in tables for d in axis.depth], "<f8"),
    }


def decode(nodes: Mapping[str, Node]) -> Scores:
    def array(path):
        return nodes[path].value

    def text(path):
        return tuple(strings(nodes[path]))

    axes = {}
    for name, path in below(nodes, "axes").items():
        tables = axis_tables(nodes, name)
        axes[name] = tuple(tables[k] for k in array(f"{path}/index").tolist())
    reasons = np.array(text("reasons"), object)
    proxies = {}
    for name, path in below(nodes, "proxies").items():
        proxies[name] = ProxyTable(
            array(f"{path}/value"),
            reasons[array(f"{path}/reason")],
            array(f"{path}/seconds"),
            {
                key: ComponentArray(array(p), tuple(json.loads(nodes[p].attrs["axes"])))
                for key, p in below(nodes, f"{path}/components").items()
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


def strings(node: Node) -> list[str]:
    return [s.decode() for s in node.value.tolist()]


def below(nodes: Mapping[str, Node], path: str) -> dict[str, str]:
    """Name to path of what lies directly in a group, by name."""
    return {p.rpartition("/")[2]: p for p in sorted(nodes) if p.rpartition("/")[0] == path}


def axis_tables(nodes: Mapping[str, Node], name: str) -> list[Axis]:
    """The tables of places along an axis of a part; of a part that has networks and not the axis, an empty one."""
    path = f"axes/{name}"
    if path not in nodes:
        return [Axis((), ())]
    names, depth = strings(nodes[f"{path}/names"]), nodes[f"{path}/depth"].value.tolist()
    spans = itertools.pairwise(nodes[f"{path}/start"].value.tolist())
    return [Axis(tuple(names[i:j]), tuple(depth[i:j])) for i, j in spans]


def axis_of_rows(path: str) -> int | None:
    """Return the axis of a data set that counts architectures."""
    top, _, rest = path.partition("/")
    if path in ("passes/seconds", "passes/peak_bytes"):
        return 1
    return 0 if (top in ("archs", "proxies") and rest) or path.endswith("/index") else None


def digest(nodes: Mapping[str, Node]) -> str:
    """Hash of the nodes that two runs of the same work must agree on: neither costs nor provenance."""
    sha = hashlib.sha256()
    for path, (value, attrs) in sorted(nodes.items()):
        if path.split("/")[0] in ("passes", "provenance") or path.endswith("/seconds"):
            continue
        shape = [] if value is None else [value.dtype.str, value.shape]
        sha.update(json.dumps([path, attrs, *shape], sort_keys=True).encode() + b"\n")
        for piece in _pieces(value):
            sha.update(piece)
    return sha.hexdigest()


def _pieces(value: np.ndarray | h5py.Dataset | None) -> Iterator[bytes]:
    """The bytes of a value in C order, a part at a time where it lies in a file."""
    if isinstance(value, h5py.Dataset) and value.size:
        rows = rows_at_once(value.shape, value.dtype)
        for start in range(0, len(value), rows):
            yield value[start : start + rows].tobytes()
    elif value is not None:
        yield value[()].tobytes()


def rows_at_once(shape: Sequence[int], dtype: np.dtype, piece: int = 1 << 23) -> int:
    """Return how many entries of the first axis make a piece of so many bytes."""
    return max(1, piece * shape[0] // max(1, int(np.prod(shape)) * dtype.itemsize))


def content_sha256(scores: Scores) -> str:
    """Hash of all that does not depend on when, where and how fast it was computed."""
    return digest(encode(scores))
