"""Where the images of a data set are: adapters for digits, image folders and tars, and CIFAR-10.

An adapter (:data:`ADAPTERS`) is a context manager that lists the images with their classes and splits, and decodes
none: each comes with a function that reads its bytes or pixels while the context is open.
"""

import bisect
import functools
import gzip
import itertools
import os
import pickle
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from libranas.errors import LibranasError

SPLITS = ("train", "val", "test")
SPLIT_FOLDERS = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
LAYOUTS = {
    "folder": "a folder (or .tar, .tar.gz) with train/CLASS/*.jpg and, if they exist, val/CLASS/*.jpg and "
    "test/CLASS/*.jpg; or with CLASS/*.jpg directly",
    "cifar10": "the folder with cifar-10-batches-py (unpacked: data_batch_1 to data_batch_5, test_batch), "
    "or an .npz with blob, offset, label, is_test, classes",
}


class Item(NamedTuple):
    """One image of a data set, not decoded yet; ``load()`` gives its file's bytes or its pixels."""

    source: str
    label: int
    load: Callable[[], bytes | np.ndarray]


@dataclass
class Source:
    """What an adapter found: classes, images of each split that the data set has, files passed over."""

    classes: list[str]
    splits: dict[str, list[Item]]
    ignored: list[str] = field(default_factory=list)


def _missing(adapter: str, problem: str) -> LibranasError:
    todo = f"Set `data.path` in the config to {LAYOUTS[adapter]}."
    return LibranasError(f"{problem} (data.adapter is '{adapter}').", todo)


def _given(path: Path | None, adapter: str) -> Path:
    if path is None or not path.exists():
        raise _missing(adapter, f"data.path '{path}' does not exist" if path else "data.path is not set")
    return path


@contextmanager
def digits(path: Path | None) -> Iterator[Source]:
    """scikit-learn's 1,797 handwritten digits, 8 x 8, values 0..16 spread over 0..255; no download."""
    from sklearn.datasets import load_digits

    if path is not None:
        raise LibranasError(
            f"data.path is '{path}', but the adapter 'digits' reads no path.",
            "Set `data.adapter` to 'folder' or 'cifar10' to read it, or set `data.path` to null.",
        )
    bunch = load_digits()
    pixels = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    loads = [functools.partial(pixels.__getitem__, i) for i in range(len(pixels))]
    items = [Item(f"digits/{i}", int(bunch.target[i]), load) for i, load in enumerate(loads)]
    yield Source([str(name) for name in bunch.target_names], {"train": items})


@contextmanager
def folder(path: Path | None) -> Iterator[Source]:
    """``{train,val,test}/CLASS/*`` or ``CLASS/*``, perhaps in an outer folder; or a tar of that."""
    path = _given(path, "folder")
    if path.is_dir():
        yield _class_folders(path, _walk(path))
    else:
        with ExitStack() as stack:
            yield _class_folders(path, _list_tar(path, stack))


def _walk(path: Path) -> Iterator[tuple[str, Callable | None]]:
    """Path below `path` and reader of each file; None for the reader of a folder."""

    def unreadable(error: OSError):
        raise LibranasError(f"Cannot list {error.filename}: {error.strerror}.", "Make it readable.")

    for here, _, names in os.walk(path, onerror=unreadable, followlinks=True):
        below = Path(here).relative_to(path).as_posix()
        yield below, None
        for name in names:
            yield f"{below}/{name}", Path(here, name).read_bytes


def _list_tar(path: Path, stack: ExitStack) -> list[tuple[str, Callable | None]]:
    """As :func:`_walk`, for a tar file that `stack` keeps open.

    A compressed one is first decompressed to an unnamed temporary file: images are wanted in another order
    than theirs, and gzip reads forward only.
    """
    try:
        archive = stack.enter_context(open(path, "rb"))  # noqa: SIM115 - the stack closes it
        if archive.read(2) == b"\x1f\x8b":
            archive = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
            with gzip.open(path) as unzipped:
                shutil.copyfileobj(unzipped, archive, 1 << 20)
        # tarfile takes a file that was cut inside a header for a complete one; the end mark tells.
        archive.seek(max(0, archive.seek(0, os.SEEK_END) - 512))
        if archive.read() != bytes(512):
            raise tarfile.ReadError("no end mark")
        archive.flush()
        archive.seek(0)
        listing: list[tuple[str, Callable | None]] = []
        with tarfile.open(fileobj=archive, mode="r:") as tar:
            for member in tar:
                # pread moves no shared file position, so that threads need no lock
                read = functools.partial(os.pread, archive.fileno(), member.size, member.offset_data)
                read = read if member.isreg() else None if member.isdir() else _no_file
                listing.append((member.name, read))
        return listing
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise LibranasError(
            f"{path} is not a complete tar or tar.gz file: it is cut off or damaged ({error}).",
            f"Copy or download it again, or set `data.path` to {LAYOUTS['folder']}.",
        ) from error
    except OSError as error:
        raise LibranasError(
            f"Cannot read {path}: {error.strerror or error}.",
            f"Check that it is readable and that {tempfile.gettempdir()} (elsewhere: set TMPDIR) has room "
            "for a decompressed copy.",
        ) from error


def _no_file() -> bytes:
    raise OSError("a link or special file in the archive, not an image")


def _class_folders(path: Path, listing: Iterable[tuple[str, Callable | None]]) -> Source:
    """Read splits and classes off the folder names; hidden files are left out."""
    files, folders = {}, set()
    for name, read in listing:
        # Names that are not UTF-8 arrive with surrogates, which neither HDF5 nor JSON readers take.
        parts = tuple(p for p in name.encode("utf-8", "replace").decode().split("/") if p not in ("", "."))
        if not any(p.startswith(".") or p == "__MACOSX" for p in parts):
            if read:
                files[parts] = read
            folders.update(parts[:depth] for depth in range(1, len(parts) + (not read)))

    def inside(base: tuple) -> list[str]:
        return sorted(f[-1] for f in folders if f[:-1] == base)

    top: tuple[str, ...] = ()
    while True:
        tops = inside(top)
        named = [n for n in tops if n.lower() in SPLIT_FOLDERS]
        # "train" without folders in it is a class of its own (vehicles have one), not a split.
        splits = [n for n in named if inside((*top, n))]
        if splits or len(tops) != 1 or not inside((*top, *tops)):
            break
        top = (*top, *tops)
    bases = {(*top, n): SPLIT_FOLDERS[n.lower()] for n in splits} or {top: "train"}
    if tops and not splits and named == tops:
        raise _missing("folder", f"{path}: no class folders in {', '.join(named)}")
    if len(set(bases.values())) < len(bases) or "train" not in bases.values():
        raise _missing("folder", f"{path} has {', '.join(splits)}: no train folder, or two for one split")

    names = {split: inside(base) for base, split in bases.items()}
    classes = names["train"]
    for split in names:
        if odd := sorted(set(classes) ^ set(names[split])):
            here, there = ("train", split) if odd[0] in classes else (split, "train")
            raise LibranasError(
                f"{path}: the class folder '{odd[0]}' is in {here}, not in {there} ({len(odd)} such).",
                "Every split needs the same class folders: add the missing ones or remove the odd ones.",
            )
    source = Source(classes, {split: [] for split in names})
    for parts, read in sorted(files.items(), key=lambda file: file[0]):
        base = parts[: len(top) + bool(splits)]
        if base in bases and len(parts) > len(base) + 1 and Path(parts[-1]).suffix.lower() in IMAGE_SUFFIXES:
            label = bisect.bisect_left(classes, parts[len(base)])
            source.splits[bases[base]].append(Item("/".join(parts), label, read))
        else:
            source.ignored.append("/".join(parts))
    if not any(source.splits.values()):
        raise _missing("folder", f"{path}: no image in a class folder, {len(source.ignored)} other file(s)")
    for split, items in source.splits.items():
        if empty := sorted(set(classes) - {classes[item.label] for item in items}):
            raise LibranasError(
                f"{path}: no image in the class folder(s) {', '.join(empty[:10])} of {split}.",
                f"Put images ({' '.join(sorted(IMAGE_SUFFIXES))}) there or remove the class everywhere.",
            )
    return source


class _ArrayUnpickler(pickle.Unpickler):
    """Reads pickled arrays, lists and text; refuses everything else, since a pickle can run any code."""

    ALLOWED = (
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy._core.numeric", "_frombuffer"),
        ("_codecs", "encode"),
    )

    def find_class(self, module: str, name: str):
        module = module.replace("numpy.core.", "numpy._core.")  # files from before numpy 2
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR-10 file needs")
        return super().find_class(module, name)


def _unpickle(path: Path, *keys: str) -> list[np.ndarray]:
    try:
        with open(path, "rb") as file:
            content = _ArrayUnpickler(file, encoding="latin1").load()
        return [np.asarray(content[key]) for key in keys]
    except Exception as error:  # damaged pickles raise nearly anything
        raise LibranasError(
            f"{path} is not a CIFAR-10 file with {', '.join(keys)} ({type(error).__name__}: {error}).",
            "Download and unpack cifar-10-python.tar.gz again.",
        ) from error


@contextmanager
def cifar10(path: Path | None) -> Iterator[Source]:
    """CIFAR-10 as torchvision keeps it (``cifar-10-batches-py``), or as JPEG bytes in one .npz file."""
    path = _given(path, "cifar10")
    if path.is_dir():
        classes, images, label_N, is_test_N = _cifar10_batches(path)
    else:
        classes, images, label_N, is_test_N = _cifar10_npz(path)
    if not np.isin(label_N, range(len(classes))).all():
        raise LibranasError(f"{path}: not all labels are 0 to {len(classes) - 1}.", "Download it again.")
    source = Source(classes, {"train": [], "test": []})
    for load, label, is_test in zip(images, label_N.tolist(), is_test_N.tolist(), strict=True):
        split = "test" if is_test else "train"
        source.splits[split].append(Item(f"{split}/{len(source.splits[split])}", label, load))
    if not source.splits["test"]:
        del source.splits["test"]
    yield source


def _cifar10_batches(path: Path) -> tuple[list[str], list[Callable], np.ndarray, np.ndarray]:
    base = path / "cifar-10-batches-py" if (path / "cifar-10-batches-py").is_dir() else path
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    if lacking := [name for name in names if not (base / name).is_file()]:
        raise _missing("cifar10", f"{base} lacks {', '.join(lacking)}")
    meta = base / "batches.meta"
    classes = [str(name) for name in _unpickle(meta, "label_names")[0]] if meta.is_file() else CIFAR10_CLASSES
    images, labels, is_test = [], [], []
    for name in names:
        data, label = _unpickle(base / name, "data", "labels")
        if data.dtype != np.uint8 or data.shape != (label.size, 3072):
            raise LibranasError(
                f"{base / name}: `data` is {data.dtype} {data.shape}, expected uint8 ({label.size}, 3072).",
                "Download and unpack cifar-10-python.tar.gz again.",
            )
        # stored as three planes of 32 x 32
        pixels = data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        images += [functools.partial(np.ascontiguousarray, image) for image in pixels]
        labels.append(label.ravel())
        is_test.append(np.full(label.size, name == "test_batch"))
    return classes, images, np.concatenate(labels), np.concatenate(is_test)


def _cifar10_npz(path: Path) -> tuple[list[str], list[Callable], np.ndarray, np.ndarray]:
    keys = ("blob", "offset", "label", "is_test", "classes")
    todo = f"Set `data.path` to {LAYOUTS['cifar10']}."
    blob, offset, label, is_test, names = map(np.ravel, read_npz(path, keys, todo))
    offset, counts = offset.astype(np.int64), {len(offset) - 1, len(label), len(is_test)}
    edges = np.concatenate([[0], offset, [len(blob)]])
    if blob.dtype != np.uint8 or len(counts) > 1 or (np.diff(edges) < 0).any():
        raise LibranasError(
            f"{path}: `blob`, `offset`, `label` and `is_test` do not fit together.",
            "Image i must be blob[offset[i]:offset[i+1]] (uint8), with a label and an is_test for each.",
        )
    images = [blob[a:b].tobytes for a, b in itertools.pairwise(offset)]
    return [str(name) for name in names], images, label.astype(np.int64), is_test.astype(bool)


#: Adapter name to context manager ``adapter(path) -> Source``; readers are valid while it is open.
ADAPTERS = {"digits": digits, "folder": folder, "cifar10": cifar10}


def read_npz(path: str | os.PathLike, keys: Sequence[str], todo: str) -> list[np.ndarray]:
    """Arrays of an .npz file, never unpickled; whatever is wrong with the file is named in the error."""
    if not Path(path).is_file():
        raise LibranasError(f"{path} does not exist.", todo)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return [arrays[key] for key in keys]
    except Exception as error:  # zipfile, zlib and numpy each have their own
        raise LibranasError(f"{path} is not an .npz file with {', '.join(keys)} ({error}).", todo) from error
