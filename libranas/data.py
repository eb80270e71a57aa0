"""Data sets made ready once: pinned splits, one file of small images, a manifest, the calibration batch.

:func:`prepare` turns a data set into three files; every later stage reads only these.

``images.h5``
    Groups ``train``, ``val``, ``test``, each with ``images`` (uint8, N x S x S x C), ``labels`` (int64, N)
    and ``source`` (text, N: path inside the data set, or ``"digits/17"``, ``"train/123"``).
``manifest.json``
    Classes, counts, normalisation, broken images, how the splits were made, hashes of the content.
``calibration.npz``
    The class-balanced batch that zero-cost proxies look at: ``inputs`` (float32, B x C x S x S, normalised)
    and ``targets`` (int64, B).

An adapter (:data:`ADAPTERS`) says where the images are and decodes none. Splits that the data set lacks are
cut from its training images, limits are applied, and only then are the chosen images decoded, a batch at a
time. Broken images are thus dropped *after* the splits were cut: mending one never moves another.

Shape suffixes: N images, B calibration batch, C channels, S image side.
"""

import bisect
import errno
import functools
import gzip
import hashlib
import io
import itertools
import json
import math
import os
import pickle
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from libranas.errors import LibranasError
from libranas.files import atomic_path, write_json
from libranas.provenance import stream_seed

FORMAT, MANIFEST_FORMAT, VERSION = "libranas-images", "libranas-manifest", 1
SPLITS = ("train", "val", "test")
SPLIT_FOLDERS = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
#: What Pillow may open. Never all it knows: its EPS reader, for one, starts a program on the file.
IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
LAYOUTS = {
    "folder": "a folder (or .tar, .tar.gz) with train/CLASS/*.jpg and, if they exist, val/CLASS/*.jpg and "
    "test/CLASS/*.jpg; or with CLASS/*.jpg directly",
    "cifar10": "the folder with cifar-10-batches-py (unpacked: data_batch_1 to data_batch_5, test_batch), "
    "or an .npz with blob, offset, label, is_test, classes",
}
#: Images decoded before they are written; bounds the memory (256 images of 224 x 224 x 3: 39 MB).
DECODE_BATCH = 256
#: Size of the pieces that HDF5 reads, checks and writes; below its cache of 1 MiB.
CHUNK_BYTES = 2**19


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


# Adapters ---------------------------------------------------------------------------------------------


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
    blob, offset, label, is_test, names = map(np.ravel, _read_npz(path, keys, todo))
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


# Choosing images --------------------------------------------------------------------------------------


def _stratified(items: Sequence[Item], count: int, seed: int) -> tuple[list[Item], list[Item]]:
    """`count` of the items with the class proportions of all of them, and the rest; order is kept."""
    from sklearn.utils import resample  # not at the top: readers of the prepared files need no scikit-learn

    # train_test_split would refuse a rest that is smaller than the number of classes
    labels, every = [item.label for item in items], np.arange(len(items))
    chosen = resample(every, n_samples=count, replace=False, stratify=labels, random_state=seed % 2**32)
    chosen = set(chosen.tolist())
    return [items[i] for i in every if i in chosen], [items[i] for i in every if i not in chosen]


def _pinned_splits(source: Source, settings: dict, seed: int) -> tuple[dict, dict]:
    """Items of all three splits, and in words how each came about; each a dict by split."""
    splits, rules = dict(source.splits), dict.fromkeys(SPLITS, "as in the data set")
    absent = [split for split in ("test", "val") if split not in splits]
    total, classes = len(splits["train"]), source.classes
    counts = np.bincount([item.label for item in splits["train"]], minlength=len(classes))
    if absent and counts.min() < 1 + len(absent):
        raise LibranasError(
            f"Class '{classes[counts.argmin()]}' has {counts.min()} training image(s): too few to also give "
            f"one to {' and '.join(absent)}, which the data set lacks.",
            "Add images to this class, leave the class out, or bring your own val and test splits.",
        )
    for split in absent:
        share = settings["splits"][split]
        count = round(share * total)
        if not len(classes) <= count < len(splits["train"]):
            raise LibranasError(
                f"data.splits.{split} = {share} makes {count} of {total} training images the {split} split; "
                f"it needs one for each of {len(classes)} classes or more, and must leave some to train.",
                f"Change `data.splits.{split}`, or add images.",
            )
        splits[split], splits["train"] = _stratified(splits["train"], count, stream_seed(seed, "split", split))
        rules[split] = f"{share:g} of {total} training images, stratified by class, seed {seed}"
        rules["train"] = f"the training images without {' and '.join(absent)}"
    for split, limit in (settings["limit"] or {}).items():
        if limit is not None and limit < len(splits[split]):
            splits[split], _ = _stratified(splits[split], limit, stream_seed(seed, "limit", split))
            rules[split] += f"; limited to {limit}, stratified by class, seed {seed}"
    return {split: splits[split] for split in SPLITS}, rules


def calibration_indices(labels_N: np.ndarray, batch: int, seed: int) -> np.ndarray:
    """Which images make the calibration batch: equal counts a class as far as the classes have images.

    Classes take turns, in random order, to give one random image each, until there are `batch`. So with more
    classes than `batch` there are `batch` distinct ones, and a class that runs out is replaced by the others.

    Parameters
    ----------
    labels_N : int (N,)
        Labels of the training split; classes that occur nowhere are passed over.
    batch : int
        Size B of the batch.
    seed : int
        Master seed.

    Returns
    -------
    int64 (B,)
        Distinct indices into `labels_N`, shuffled.

    Raises
    ------
    LibranasError
        With fewer than `batch` images.
    """
    if len(labels_N) < batch:
        raise LibranasError(
            f"The training split has {len(labels_N)} images, the calibration batch needs {batch}.",
            "Lower `data.calibration`, raise `data.limit.train`, or add images.",
        )
    rng = np.random.default_rng(stream_seed(seed, "calibration"))
    order_N = rng.permutation(len(labels_N))
    shuffled_N = np.asarray(labels_N)[order_N]
    counts = np.bincount(shuffled_N)
    by_class_N = np.argsort(shuffled_N, kind="stable")
    turn_N = np.empty(len(labels_N), np.int64)  # this image is the turn-th of its class
    turn_N[by_class_N] = np.arange(len(labels_N)) - np.repeat(np.cumsum(counts) - counts, counts)
    seat = rng.permutation(len(counts))
    first_B = np.lexsort((seat[shuffled_N], turn_N))[:batch]
    return rng.permutation(order_N[first_B])


# Decoding ---------------------------------------------------------------------------------------------


def decode(data: bytes | np.ndarray, size: int, channels: int) -> np.ndarray:
    """An image file's bytes (or its pixels, uint8) as uint8 (S, S, C).

    The whole file is decoded, turned as its EXIF orientation says, scaled (bicubic, antialiased) so that the
    shorter side is `size`, and cut to the centre square. Of an animation the first frame is taken;
    transparency is discarded, as torchvision does.

    Raises
    ------
    ValueError or what Pillow raises
        If it is not an image, is cut off, or has more pixels than Pillow's ``MAX_IMAGE_PIXELS``.
    """
    if isinstance(data, np.ndarray):
        image = Image.fromarray(data)
    else:
        if not data:
            raise ValueError("the file is empty")
        image = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS)
        if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
            raise ValueError(f"{image.width} x {image.height} pixels, allowed are {Image.MAX_IMAGE_PIXELS}")
        image.load()
    # Pillow would clip deeper pixels to 255 instead of scaling them.
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if image.mode in ("I", "F") and not deep:
        raise ValueError(f"pixels of type '{image.mode}' have no known range; save it with 8 or 16 bits")
    image = ImageOps.exif_transpose(image)
    if deep:
        image = Image.fromarray((np.asarray(image).astype(np.uint32) // 257).astype(np.uint8))
    if "transparency" in image.info:
        image = image.convert("RGBA")
    image = image.convert("RGB" if channels == 3 else "L")
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(size, size, channels)


def _try_decode(size: int, channels: int, item: Item) -> tuple[Item, np.ndarray | str]:
    """The image, or the reason why there is none (never with a machine's paths or addresses in it)."""
    try:
        return item, decode(item.load(), size, channels)
    except UnidentifiedImageError:
        return item, f"not an image file (or not of type {', '.join(IMAGE_FORMATS)})"
    except (OSError, ValueError) as error:
        return item, getattr(error, "strerror", None) or str(error)
    except Exception as error:  # Pillow's readers raise nearly anything on damaged bytes
        return item, f"{type(error).__name__}: {error}"


def _decoded(items: Sequence[Item], size: int, channels: int, workers: int) -> Iterator[tuple]:
    """Each item with its image or the reason, in order, DECODE_BATCH at a time in memory."""
    task = functools.partial(_try_decode, size, channels)
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(items), DECODE_BATCH):
            yield from pool.map(task, items[start : start + DECODE_BATCH])


# Writing ----------------------------------------------------------------------------------------------


class _SplitWriter:
    """Appends images to one group of images.h5 and keeps its hash, counts and pixel histogram."""

    def __init__(self, file: h5py.File, split: str, size: int, channels: int):
        self.group = file.create_group(split)
        shape = (size, size, channels)
        rows = max(1, min(DECODE_BATCH, CHUNK_BYTES // math.prod(shape)))
        self.images = self.group.create_dataset(
            "images", (0, *shape), np.uint8, maxshape=(None, *shape), chunks=(rows, *shape), fletcher32=True
        )
        self.pending: list[np.ndarray] = []
        self.labels: list[int] = []
        self.sources: list[str] = []
        self.hash = hashlib.sha256()
        # Integers: mean and deviation come out the same on every machine, down to the last bit.
        self.histogram_C = np.zeros((channels, 256), np.int64)

    def add(self, item: Item, image_SSC: np.ndarray) -> None:
        self.pending.append(image_SSC)
        self.labels.append(item.label)
        self.sources.append(item.source)
        if len(self.pending) == DECODE_BATCH:
            self._flush()

    def _flush(self) -> None:
        if not self.pending:
            return
        batch_NSSC = np.stack(self.pending)
        self.pending.clear()
        self.images.resize(len(self.labels), axis=0)
        self.images[-len(batch_NSSC) :] = batch_NSSC
        self.hash.update(batch_NSSC.tobytes())
        for channel, histogram in enumerate(self.histogram_C):
            histogram += np.bincount(batch_NSSC[..., channel].ravel(), minlength=256)

    def close(self, classes: list[str]) -> dict:
        """Write labels and sources; returns the split's entry of the manifest."""
        self._flush()
        labels_N = np.array(self.labels, np.int64)
        if len(labels_N):
            self.group.create_dataset("labels", data=labels_N, fletcher32=True)
            # Fixed length: text of variable length lies in a heap that no checksum covers.
            text_N = np.array([source.encode() for source in self.sources])
            utf8 = h5py.string_dtype("utf-8", text_N.itemsize)
            self.group.create_dataset("source", data=text_N.astype(utf8), fletcher32=True, compression="gzip")
        self.hash.update(labels_N.astype("<i8").tobytes())
        counts = np.bincount(labels_N, minlength=len(classes)).tolist()
        return {
            "count": len(labels_N),
            "per_class": dict(zip(classes, counts, strict=True)),
            "sha256": self.hash.hexdigest(),
        }

    def mean_std(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and (population) standard deviation of each channel, pixels in [0, 1]."""
        level = np.arange(256)
        moments = [(int(h.sum()), int(h @ level), int(h @ level**2)) for h in self.histogram_C]
        mean_C = [first / count / 255 for count, first, _ in moments]
        std_C = [math.sqrt(count * second - first**2) / count / 255 for count, first, second in moments]
        return np.array(mean_C), np.array(std_C)


def _unchanged(iterable: Iterable, total: int, label: str) -> Iterable:
    return iterable


def prepare(
    settings: dict, out_dir: str | os.PathLike, seed: int, workers: int = 2, progress: Callable = _unchanged
) -> dict:
    """Write ``images.h5``, ``manifest.json`` and ``calibration.npz`` (see the module) into `out_dir`.

    Parameters
    ----------
    settings : dict
        The validated ``data`` section of the config: ``adapter``, ``path``, ``image_size``, ``channels``,
        ``splits`` (val, test: shares of the training images, used where the data set lacks the split),
        ``limit`` (None, or images a split: stratified, seeded), ``max_broken``, ``calibration`` (batch size).
    out_dir : path
        Made if it does not exist.
    seed : int
        Master seed of the streams ``split``, ``limit`` and ``calibration``.
    workers : int
        Threads that decode; the result does not depend on it.
    progress : callable (iterable, total, label) -> iterable
        Wraps the loop over the images of each split.

    Returns
    -------
    dict
        The manifest. ``content_sha256`` covers pixels, labels, classes, normalisation and calibration batch,
        not where the images came from: a folder and a tar of it agree.

    Raises
    ------
    LibranasError
        If the data set is missing, malformed, or has more than ``max_broken`` broken images; no file is left.
    """
    path = Path(settings["path"]).expanduser() if settings["path"] else None
    out_dir, size, channels = Path(out_dir), settings["image_size"], settings["channels"]
    with ADAPTERS[settings["adapter"]](path) as source:
        classes = source.classes
        if len(classes) < 2:
            raise LibranasError(
                f"{path} has only the class {classes}; classification needs two or more.",
                "Point `data.path` at the folder above the class folders.",
            )
        splits, rules = _pinned_splits(source, settings, seed)
        # The manifest is renamed into place last: where it is, the other two are.
        with (
            atomic_path(out_dir / "manifest.json") as manifest_path,
            atomic_path(out_dir / "calibration.npz") as calibration_path,
            atomic_path(out_dir / "images.h5") as images_path,
        ):
            _check_room(out_dir, sum(map(len, splits.values())), size * size * channels, settings)
            broken, entries, writers = [], {}, {}
            with _new_h5(images_path) as file:
                for split, items in splits.items():
                    writer = writers[split] = _SplitWriter(file, split, size, channels)
                    images = _decoded(items, size, channels, workers)
                    for item, image in progress(images, len(items), f"{split} images"):
                        if isinstance(image, str):
                            broken.append({"split": split, "source": item.source, "reason": image})
                        else:
                            writer.add(item, image)
                    entries[split] = writer.close(classes)
                _check_decoded(settings, entries, broken)
                mean_C, std_C = writers["train"].mean_std()
                batch_size = settings["calibration"]
                inputs_BCSS, targets_B = _calibration(file["train"], mean_C, std_C, batch_size, seed)
            np.savez(calibration_path, inputs=inputs_BCSS, targets=targets_B)
            packed = inputs_BCSS.astype("<f4").tobytes() + targets_B.astype("<i8").tobytes()
            content = {
                "version": VERSION,
                "classes": classes,
                "image_size": size,
                "channels": channels,
                "splits": entries,
                "mean": mean_C.tolist(),
                "std": std_C.tolist(),
                "calibration": {"count": len(targets_B), "sha256": hashlib.sha256(packed).hexdigest()},
            }
            manifest = {
                "format": MANIFEST_FORMAT,
                **content,
                "content_sha256": hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest(),
                "adapter": settings["adapter"],
                "source": path.resolve().name if path else None,
                "seed": seed,
                "split_rule": rules,
                "broken": {"count": len(broken), "images": broken},
                "ignored": {"count": len(source.ignored), "first": source.ignored[:20]},
            }
            write_json(manifest_path, manifest)
    return manifest


def _calibration(train: h5py.Group, mean_C, std_C, batch: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    if not std_C.all():
        raise LibranasError(
            f"Channel {int(std_C.argmin())} is the same in every pixel of every training image.",
            "Check that `data.path` holds the right images.",
        )
    labels_N = train["labels"][:]
    chosen_B = calibration_indices(labels_N, batch, seed)
    increasing_B, back_B = np.unique(chosen_B, return_inverse=True)  # h5py reads no other order
    pixels_BSSC = train["images"][increasing_B][back_B]
    inputs_BSSC = ((pixels_BSSC / 255 - mean_C) / std_C).astype(np.float32)
    return np.ascontiguousarray(inputs_BSSC.transpose(0, 3, 1, 2)), labels_N[chosen_B]


@contextmanager
def _new_h5(path: Path) -> Iterator[h5py.File]:
    """A new images.h5, in the file format (HDF5 1.10) that also has checksums over its own structure."""
    try:
        with h5py.File(path, "w", libver=("v110", "v110")) as file:
            file.attrs["format"], file.attrs["version"] = np.bytes_(FORMAT), VERSION
            yield file
    except RuntimeError as error:  # h5py's way to report a full disk when it closes the file
        if "No space left" in str(error):
            raise OSError(errno.ENOSPC, str(error)) from error
        raise


def _check_room(out_dir: Path, images: int, pixels: int, settings: dict) -> None:
    """Raise if the disk has no room: the HDF5 library, once a write failed, can crash on the way out."""
    # room for label and name of each image, for half-filled chunks, and for the float32 calibration batch
    need = images * (pixels + 64) + len(SPLITS) * CHUNK_BYTES + settings["calibration"] * pixels * 4
    free = shutil.disk_usage(out_dir).free
    if free < need:
        raise LibranasError(
            f"No space left on the disk of {out_dir}: {images} images of {pixels} bytes need "
            f"{need / 2**20:.1f} MiB, free are {free / 2**20:.1f} MiB.",
            "Free some space, write to a larger disk, or lower `data.image_size` or `data.limit`.",
        )


def _check_decoded(settings: dict, entries: dict, broken: list[dict]) -> None:
    """Raise if too many images were broken or a split or a training class was left without any."""
    if len(broken) > settings["max_broken"]:
        names = "".join(f"\n     {b['source']}: {b['reason']}" for b in broken[:10])
        raise LibranasError(
            f"{len(broken)} broken image(s), data.max_broken allows {settings['max_broken']}. First:{names}",
            "Mend or remove them, or raise `data.max_broken` to leave broken images out.",
        )
    for split, entry in entries.items():
        lost = [name for name, count in entry["per_class"].items() if count == 0]
        if entry["count"] == 0 or (split == "train" and lost):
            raise LibranasError(
                f"The {split} split has no image of class '{lost[0]}' left ({len(broken)} broken image(s)).",
                f"Mend broken images, raise `data.limit.{split}`, lower `data.splits`, or add images.",
            )


# Reading ----------------------------------------------------------------------------------------------

_AGAIN = "Delete it and run the stage `prepare` again."


@contextmanager
def open_images(path: str | os.PathLike) -> Iterator[h5py.File]:
    """The checked, read-only HDF5 file behind ``images.h5``.

    Raises
    ------
    LibranasError
        Naming the file, if it is missing, foreign, of another version, cut off or damaged (also when that
        shows only in reading).
    """
    if not Path(path).is_file():
        raise LibranasError(f"{path} does not exist.", "Run the stage `prepare`, which makes it.")
    try:
        with h5py.File(path, "r") as file:
            found = file.attrs.get("format"), file.attrs.get("version")
            if found != (FORMAT.encode(), VERSION) or not all(f"{split}/source" in file for split in SPLITS):
                raise LibranasError(
                    f"{path} is no images file (format {found[0]}, version {found[1]}, {', '.join(file)}; "
                    f"expected {FORMAT.encode()}, {VERSION}, {', '.join(SPLITS)}).",
                    _AGAIN,
                )
            yield file
    except (OSError, KeyError) as error:  # KeyError: how h5py says that damage hides a group
        raise LibranasError(f"{path} is cut off, damaged or not an HDF5 file ({error}).", _AGAIN) from error


def load_split(path: str | os.PathLike, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (N, C, S, S) and labels int64 (N,) of a split of ``images.h5``; errors: `open_images`."""
    with open_images(path) as file:
        if split not in SPLITS:
            raise LibranasError(f"{path} has no split '{split}'.", f"Name one of {', '.join(SPLITS)}.")
        images_NSSC, labels_N = file[split]["images"][:], file[split]["labels"][:]
    return np.ascontiguousarray(images_NSSC.transpose(0, 3, 1, 2)), labels_N


def _read_npz(path: str | os.PathLike, keys: Sequence[str], todo: str) -> list[np.ndarray]:
    """Arrays of an .npz file, never unpickled; whatever is wrong with the file is named in the error."""
    if not Path(path).is_file():
        raise LibranasError(f"{path} does not exist.", todo)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return [arrays[key] for key in keys]
    except Exception as error:  # zipfile, zlib and numpy each have their own
        raise LibranasError(f"{path} is not an .npz file with {', '.join(keys)} ({error}).", todo) from error


def load_calibration(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Inputs float32 (B, C, S, S), normalised, and targets int64 (B,) of ``calibration.npz``.

    Raises
    ------
    LibranasError
        Naming the file, if it is missing, cut off or foreign.
    """
    inputs_BCSS, targets_B = _read_npz(path, ("inputs", "targets"), _AGAIN)
    return inputs_BCSS, targets_B
