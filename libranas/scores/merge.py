"""Joining score files, one of them in memory at a time."""

import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from libranas.core.errors import LibranasError
from libranas.core.files import atomic_path, disk_error
from libranas.core.scorecard import Axis
from libranas.scores.file import all_nodes, array_of, create, explained, intact, loaded, opened, seal, verify
from libranas.scores.nodes import (
    ABOUT,
    MAYBE,
    Node,
    array_node,
    axis_of_rows,
    axis_tables,
    below,
    make_node,
    places_of,
    strings,
    text_node,
)

#: Bytes that are held before they are written: many small writes take long.
AT_ONCE = 1 << 26
AGAIN = "Delete the files that do not belong together and run the same command again."


def merge(path: str | os.PathLike, parts: Sequence[str | os.PathLike], wanted: Iterable[str] | None = None) -> None:
    """Join score files of disjoint sets of architectures into one, in the order of the files.

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
    heads: list[dict[str, Node]] = []
    first = None  # the first part that holds anything
    for k, part in enumerate(parts):
        heads.append(_head(part, None if first is None else heads[first]))
        if first is None and len(heads[k]["archs/id"].value):
            first = k
    _must_belong_together(heads, list(map(str, parts)), wanted)
    plan = _Plan.of(heads)
    if (needed := sum(os.path.getsize(part) for part in parts)) > shutil.disk_usage(Path(path).parent).free:
        raise disk_error(OSError(errno.ENOSPC, f"{needed} bytes are needed"), Path(path))
    with atomic_path(path) as temporary:
        with h5py.File(temporary, "w", libver=("v110", "v110")) as f:
            for name, (node, shape) in plan.nodes.items():
                create(f, name, node, shape)
            start, waiting, held = 0, [], 0
            for part, head in zip(parts, heads, strict=True):
                if rows := dict(plan.rows_of(head, _whole(part, head, parts[first or 0]))):
                    waiting.append(rows)
                    held += sum(value.nbytes for value in rows.values())
                if held > AT_ONCE:
                    start += _put(f, waiting, start)
                    waiting, held = [], 0
            _put(f, waiting, start)
        with h5py.File(temporary, "r+", libver=("v110", "v110")) as f:
            seal(f, all_nodes(f))


def _head(path: str | os.PathLike, like: Mapping[str, Node] | None = None) -> dict[str, Node]:
    """The nodes of a file without its large values: of what has a row an architecture only the ids are there.

    Where it has the groups and data sets of another file, `like`, its attributes are taken to be those too: reading
    hundreds of them takes longer than all the rest. Whether they are, the hash tells in :func:`_whole`.
    """
    with opened(path, partial(_nodes_like, like) if like else all_nodes) as (_, nodes):
        heads = {}
        for name, (value, attrs) in nodes.items():
            if value is not None and axis_of_rows(name) is not None and name != "archs/id":
                heads[name] = Node(np.empty((0, *value.shape[1:]), value.dtype), attrs)
            else:
                heads[name] = Node(None if value is None else array_of(value), attrs)
        return heads


def _nodes_like(like: Mapping[str, Node], f: h5py.File) -> dict[str, Node]:
    """The nodes of a file, with data sets for values and the attributes of `like`; its own if it has other names."""
    members: dict[str, set[bytes]] = {"/": set(), **{name: set() for name, node in like.items() if node.value is None}}
    for name in like:
        group, _, last = name.rpartition("/")
        members[group or "/"].add(last.encode())
    if any(set(h5py.h5g.open(f.id, group.encode())) != names for group, names in members.items()):
        return all_nodes(f)
    return {
        name: Node(None if value is None else h5py.Dataset(h5py.h5d.open(f.id, name.encode())), attrs)
        for name, (value, attrs) in like.items()
    }


def _whole(path: str | os.PathLike, head: Mapping[str, Node], first: str | os.PathLike) -> dict[str, Node]:
    """All of a file, verified, whose head was taken to be as that of the `first`."""
    with explained(path), h5py.File(path, "r", locking=False) as f:
        nodes = loaded(_nodes_like(head, f))
        if not intact(f, nodes):
            verify(path, f, all_nodes(f))
            # It is as it was written, so its attributes are others: which matters, or not, as where nothing ran.
            _must_belong_together([_head(first), _head(path)], [str(first), str(path)], None)
        return nodes


def _must_agree(head: Mapping[str, Node]) -> dict[str, str]:
    """Return in words what files must share to be merged."""
    proxies = below(head, "proxies")
    facts = {"the seeds": str(tuple(head["seeds"].value.tolist())), "the proxies": ", ".join(proxies)}
    for key, value in json.loads(strings(head["provenance"])[0]).get("conditions", {}).items():
        facts[f"condition {key!r}"] = json.dumps(value, sort_keys=True)
    for name, path in proxies.items():
        facts |= {f"{key} of {name}": str(head[path].attrs.get(key, "")) for key in (*ABOUT, *MAYBE)}
        components = {key: head[p].attrs["axes"] for key, p in below(head, f"{path}/components").items()}
        facts[f"components of {name}"] = str(components)
    return facts


def _must_belong_together(heads: Sequence[Mapping], names: Sequence[str], wanted: Iterable[str] | None) -> None:
    filled = next((k for k, head in enumerate(heads) if len(head["archs/id"].value)), 0)
    owner, ours = {}, _must_agree(heads[filled])
    for head, name in zip(heads, names, strict=True):
        theirs = _must_agree(head)
        if not len(head["archs/id"].value):  # nothing ran there: which pass a proxy shared is not known
            theirs |= {key: ours[key] for key in theirs.keys() & ours.keys() if key.startswith("pass_name of ")}
        for key in [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]:
            found = f"{ours.get(key)} in {names[filled]} but {theirs.get(key)} in {name}"
            raise LibranasError(f"Scores cannot be merged: {key}: {found}.", AGAIN)
        for arch in strings(head["archs/id"]):
            if arch in owner:
                raise LibranasError(f"Architecture {arch} is in {owner[arch]} and in {name}.", AGAIN)
            owner[arch] = name
    if wanted is not None and (wanted := set(wanted)) != owner.keys():
        lacking, extra = sorted(wanted - owner.keys()), sorted(owner.keys() - wanted)
        raise LibranasError(
            f"The merged files lack {len(lacking)} of the {len(wanted)} wanted architectures {lacking[:5]} "
            f"and hold {len(extra)} that are not wanted {extra[:5]}.",
            AGAIN,
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

    nodes: dict[str, tuple[Node, tuple[int, ...] | None]]
    tables: dict[str, dict[Axis, int]]
    reasons: dict[str, int]
    passes: dict[str, int]

    @classmethod
    def of(cls, heads: Sequence[Mapping[str, Node]]) -> "_Plan":
        count = sum(len(head["archs/id"].value) for head in heads)
        filled = [head for head in heads if len(head["archs/id"].value)] or heads[:1]
        first, seeds = filled[0], len(filled[0]["seeds"].value)
        reasons = sorted(set().union(*(strings(head["reasons"]) for head in filled)))
        passes = sorted(set().union(*(strings(head["passes/names"]) for head in filled)))
        tables: dict[str, dict[Axis, int]] = {}
        for name in sorted(set().union(*(below(head, "axes") for head in filled))):
            found = [axis for head in filled for axis in axis_tables(head, name)]
            tables[name] = {axis: k for k, axis in enumerate(dict.fromkeys(found))}
        provenance = [json.loads(strings(head["provenance"])[0]) for head in heads]
        facts = [{key: value for key, value in p.items() if key != "conditions"} for p in provenance]
        together = {key: value for key, value in provenance[0].items() if key == "conditions"}
        together["parts"] = [x for f in facts for x in f.get("parts", [f])]
        whole = {
            "seeds": first["seeds"],
            "reasons": text_node(reasons),
            "passes/names": text_node(passes),
            "excluded": text_node(sorted(set().union(*(strings(head["excluded"]) for head in filled)))),
            "warnings": text_node(sorted(set().union(*(strings(head["warnings"]) for head in filled)))),
            "provenance": text_node([json.dumps(together, sort_keys=True)], "json"),
        }
        for name, row in tables.items():
            whole |= {f"axes/{name}": make_node("axis"), **places_of(f"axes/{name}", row)}
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
                nodes[path] = Node(np.empty(0, f"S{width}"), node.attrs), (count,)
            else:
                nodes[path] = node, (count, *node.value.shape[1:])
        for name in tables:
            nodes[f"axes/{name}/index"] = array_node([], "<i8"), (count,)
        return cls(
            dict(sorted(nodes.items())),
            tables,
            {r: k for k, r in enumerate(reasons)},
            {p: k for k, p in enumerate(passes)},
        )

    def rows_of(self, head: Mapping[str, Node], nodes: Mapping[str, Node]) -> Iterator[tuple[str, np.ndarray]]:
        """Return the values of a part for each data set, in the numbering of the merged file."""
        count = len(head["archs/id"].value)
        if not count:
            return
        code = np.array([self.reasons[reason] for reason in strings(nodes["reasons"])], "<i4")
        for path in self.nodes:
            value = nodes[path].value if path in nodes else None
            if value is not None and axis_of_rows(path) == 0 and not path.startswith("axes/"):
                yield path, code[value] if path.endswith("/reason") else value
        for name, rows in self.tables.items():
            if f"axes/{name}/index" in nodes:
                row = np.array([rows[axis] for axis in axis_tables(nodes, name)])
                yield f"axes/{name}/index", row[nodes[f"axes/{name}/index"].value]
            else:
                yield f"axes/{name}/index", np.full(count, rows[Axis((), ())])
        for path in ("passes/seconds", "passes/peak_bytes"):
            value = np.full((len(self.passes), count, len(nodes["seeds"].value)), np.nan)
            value[[self.passes[name] for name in strings(nodes["passes/names"])]] = nodes[path].value
            yield path, value


def _put(f: h5py.File, parts: Sequence[Mapping[str, np.ndarray]], start: int) -> int:
    """Write the rows of some parts from `start` on, each data set at once; how many rows there were.

    What is narrower than its data set leaves the rest as it is: NaN.
    """
    for name in parts[0] if parts else ():
        axis, at = axis_of_rows(name), start
        values = [part[name] for part in parts]
        widths = {value.shape[axis + 1 :] for value in values}
        for value in [np.concatenate(values, axis)] if len(widths) == 1 else values:
            rows = slice(at, at + value.shape[axis])
            f[name][(slice(None),) * axis + (rows, *(slice(0, n) for n in value.shape[axis + 1 :]))] = value
            at = rows.stop
    return sum(len(part["archs/id"]) for part in parts)
