"""Writing and reading the HDF5 file of scores. Specification: ``docs/store-format.md``."""

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import h5py
import numpy as np
import pandas as pd

from libranas.core.errors import LibranasError
from libranas.core.files import atomic_path
from libranas.core.stats import mean_of_seeds
from libranas.scores.nodes import ELEMENTS, Node, axis_of_rows, decode, digest, encode, rows_at_once
from libranas.scores.table import Scores

FORMAT = "libranas-scores"
VERSION = 1


def write(path: str | os.PathLike, scores: Scores) -> None:
    """Write `scores` to `path` atomically; equal scores give equal bytes. LibranasError if it cannot be written."""
    nodes = encode(scores)
    # HDF5 works in memory and the bytes are written at once: a full disk is then an ordinary error here,
    # not one in the middle of closing a file. v110 is the oldest layout whose metadata carry checksums.
    with h5py.File("scores", "w", driver="core", backing_store=False, libver=("v110", "v110")) as f:
        for name, node in nodes.items():
            create(f, name, node)
        seal(f, nodes)
        f.flush()
        image = f.id.get_file_image()
    with atomic_path(path) as temporary:
        temporary.write_bytes(image)


def seal(f: h5py.File, nodes: Mapping[str, Node]) -> None:
    """Mark a file as written to its end, with the hash of what is in it."""
    _set_attrs(f, {"format": FORMAT, "version": VERSION, "complete": True, "content_sha256": digest(nodes)})


def create(f: h5py.File, name: str, node: Node, shape: Sequence[int] | None = None) -> None:
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
        axis = axis_of_rows(name) or 0
        rest = shape[axis + 1 :]
        rows = rows_at_once(shape[axis:], dtype, 1 << 18) if bytes_ >= 1 << 20 else shape[axis]
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
def explained(path: str | os.PathLike) -> Iterator[None]:
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


def all_nodes(f: h5py.File) -> dict[str, Node]:
    """Every node of a file, with data sets for values."""
    nodes: dict[str, Node] = {}

    def add(name: str, element) -> None:
        nodes[name] = Node(element if isinstance(element, h5py.Dataset) else None, _attrs(element))

    f.visititems(add)
    return nodes


@contextmanager
def opened(
    path: str | os.PathLike, nodes_of: Callable[[h5py.File], dict[str, Node]] = all_nodes
) -> Iterator[tuple[h5py.File, dict[str, Node]]]:
    """The file and its nodes, whose values are not read: checked for format and versions, all errors explained."""
    newer = f"Update libranas. Or delete {path} and run the same command again with this one."
    with explained(path), h5py.File(path, "r", locking=False) as f:  # never changed once written: nothing to lock
        if f.attrs.get("format") != FORMAT.encode():
            raise LibranasError(f"{path} is an HDF5 file, but not one of {FORMAT!r}.", _again(path))
        root = _attrs(f)
        if root["version"] > VERSION:
            raise LibranasError(f"{path} has version {root['version']}; {VERSION} is known.", newer)
        if not root["complete"]:
            raise LibranasError(f"{path} was not written to its end.", _again(path))
        nodes = nodes_of(f)
        for name, (_, attrs) in nodes.items():
            if attrs["type_version"] > ELEMENTS.get(attrs["type"], 0):
                kind = f"{attrs['type']!r} version {attrs['type_version']}"
                raise LibranasError(f"{path}: /{name} is of a kind not known here ({kind}).", newer)
        yield f, nodes


def array_of(data: h5py.Dataset) -> np.ndarray:
    """A whole data set; ``data[()]`` takes several times as long, in hundreds of small ones."""
    value = np.empty(data.id.shape, data.id.dtype)
    if value.size:
        data.id.read(h5py.h5s.ALL, h5py.h5s.ALL, value)
    return value


def loaded(nodes: Mapping[str, Node]) -> dict[str, Node]:
    """Nodes with arrays in the place of data sets."""
    return {path: Node(None if value is None else array_of(value), attrs) for path, (value, attrs) in nodes.items()}


def intact(f: h5py.File, nodes: Mapping[str, Node]) -> bool:
    """Return whether the content of a file has its hash."""
    return digest(nodes) == _attrs(f)["content_sha256"]


def verify(path: str | os.PathLike, f: h5py.File, nodes: Mapping[str, Node]) -> None:
    if not intact(f, nodes):
        raise LibranasError(f"{path} is damaged: its content does not match its hash.", _again(path))


def read(path: str | os.PathLike) -> Scores:
    """Read a file written by :func:`write`: whole and verified.

    LibranasError if it is missing, truncated, damaged, not one of ours, or newer than this software.
    """
    with opened(path) as (f, nodes):
        nodes = loaded(nodes)
        verify(path, f, nodes)
        return decode(nodes)


def column(path: str | os.PathLike, proxy: str) -> pd.Series:
    """One proxy of a file as :func:`frame` has it, reading no other; checksums are checked, the hash of all is not."""
    with opened(path) as (_, nodes):
        if (name := f"proxies/{proxy}") not in nodes:
            held = ", ".join(p.split("/")[1] for p, node in nodes.items() if node.attrs["type"] == "proxy")
            raise LibranasError(f"{path} has no proxy {proxy}.", f"It has {held}.")
        value_A, _ = mean_of_seeds(nodes[f"{name}/value"].value[()], nodes[name].attrs["orientation"])
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
        with opened(path) as (f, nodes):
            verify(path, f, nodes)
            self.length = len(nodes["archs/id"].value)

    def __iter__(self) -> Iterator[Scores]:
        with opened(self.path) as (_, nodes):
            if self.components is not None:
                nodes = {
                    path: node
                    for path, node in nodes.items()
                    if node.attrs["type"] != "component" or path.split("/")[-1] in self.components
                }
            for start in range(0, max(1, self.length), self.rows):
                yield decode({p: _rows(p, node, slice(start, start + self.rows)) for p, node in nodes.items()})


def _rows(path: str, node: Node, part: slice) -> Node:
    """A node with its value in memory, of these architectures alone."""
    if node.value is None:
        return node
    axis = axis_of_rows(path)
    return Node(node.value[() if axis is None else (slice(None),) * axis + (part,)], node.attrs)


def _set_attrs(element, attrs: Mapping[str, int | str]) -> None:
    # Fixed length here too: variable-length text goes to a heap without a checksum, where one damaged
    # byte can send HDF5 into an endless loop.
    for key, value in attrs.items():
        raw = value.encode() if isinstance(value, str) else None
        dtype = "<i8" if raw is None else h5py.string_dtype("utf-8", max(1, len(raw)))
        element.attrs.create(key, value if raw is None else np.array(raw, dtype), dtype=dtype)


def _attrs(element) -> dict[str, int | str]:
    found = {}
    for k in range(h5py.h5a.get_num_attrs(element.id)):  # element.attrs takes four times as long, in every data set
        attribute = h5py.h5a.open(element.id, index=k)
        attribute.read(value := np.empty(attribute.shape, attribute.dtype))
        found[attribute.name.decode()] = value.item().decode() if value.dtype.kind == "S" else int(value)
    return found
