"""Where the images of a data set are: adapters for image folders and tars, and for well-known data sets.

An adapter (:data:`ADAPTERS`) is a context manager that lists the images with their classes and splits, and decodes
none: each comes with a function that reads its bytes or pixels while the context is open. Nothing is downloaded,
and nothing is written under a name from an archive: members are read where they lie, their names are only text.
"""

import bisect
import functools
import gzip
import itertools
import operator
import os
import pickle
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from libranas.errors import LibranasError
from libranas.provenance import stream_seed
from libranas.sphere import project, random_rotation

SPLITS = ("train", "val", "test")
SPLIT_FOLDERS = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
#: Bytes of a .cls file, and classes that have numbers instead of names, which are believed.
LONGEST_LABEL, MOST_CLASSES = 1000, 1_000_000
LAYOUTS = {
    "folder": "a folder (or .tar, .tar.gz) with train/CLASS/*.jpg and, if they exist, val/CLASS/*.jpg and "
    "test/CLASS/*.jpg; or with CLASS/*.jpg directly",
    "cifar10": "the folder with cifar-10-batches-py (unpacked: data_batch_1 to data_batch_5, test_batch), "
    "or an .npz with blob, offset, label, is_test, classes",
    "cifar100": "the folder with cifar-100-python (unpacked: train, test, meta), or an .npz with blob, offset, label, "
    "is_test, classes",
    "spherical_cifar100": "the folder with cifar-100-python (unpacked: train, test, meta), to be projected, or "
    "NAS-Bench-360's s2_cifar100.gz",
    "svhn": "the folder with train_32x32.mat and test_32x32.mat (cropped digits)",
    "pets": "the folder with oxford-iiit-pet (unpacked: images/*.jpg, annotations/trainval.txt, annotations/test.txt)",
    "imagenet": "a folder or .tar with train/nXXXXXXXX/*.JPEG and val/nXXXXXXXX/*.JPEG; the folder with train and val "
    "tars of such folders, WebDataset shards (*train*.tar, *val*.tar with KEY.jpg and KEY.cls) "
    "or ILSVRC2012_img_train.tar; or the folder with Hugging Face's parquet files",
    "webdataset": "a folder of WebDataset shards whose names say train and, if they exist, val (or valid) and test "
    "(data-train-0000.tar, with KEY.jpg and KEY.cls, a number or a name), perhaps with classes.txt, a name a line",
    "hugging_face": "the folder of a data set's parquet files (data/train-*.parquet), with the columns image and label",
}


class Item(NamedTuple):
    """One image of a data set, not decoded yet; ``load()`` gives its file's bytes or its pixels."""

    source: str
    label: int
    load: Callable[[], bytes | np.ndarray]


@dataclass
class Source:
    """What an adapter found: classes, images of each split that the data set has, files passed over, oddities."""

    classes: list[str]
    splits: dict[str, list[Item]]
    ignored: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


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

    for here, folders, names in os.walk(path, onerror=unreadable, followlinks=True):
        below = Path(here).relative_to(path).as_posix()
        yield below, None
        for name in names:
            yield f"{below}/{name}", Path(here, name).read_bytes
        for name in [name for name in folders if _leads_back(path, Path(here, name))]:
            folders.remove(name)
            yield f"{below}/{name}", _no_file


def _leads_back(top: Path, folder: Path) -> bool:
    """Whether `folder` is a link to one that it lies in: following it would give images of other classes, for ever."""
    if not folder.is_symlink():
        return False
    target, above = folder.resolve(), folder.parents[: len(folder.relative_to(top).parts)]
    return any(parent.resolve().is_relative_to(target) for parent in above)


#: What tarfile raises for damaged headers, and for those that state impossible sizes.
_DAMAGE = (tarfile.TarError, EOFError, ValueError, OverflowError, MemoryError, RecursionError)


def _list_tar(path: Path, stack: ExitStack, nested: bool = False) -> list[tuple[str, Callable | None]]:
    """As :func:`_walk`, for a tar file, with `nested` also for the tars in it as if they were folders.

    A compressed one is first decompressed to an unnamed temporary file, which `stack` keeps open: images are wanted
    in another order than theirs, and gzip reads forward only.
    """
    try:
        with ExitStack() as opened:
            archive = opened.enter_context(open(path, "rb"))
            # Opened for each image, since thousands of shards are more than a process may have open
            read_at = functools.partial(_read_at, path)
            if archive.read(2) == b"\x1f\x8b":
                archive = stack.enter_context(tempfile.TemporaryFile())
                # pread moves no shared file position, so that threads need no lock
                read_at = functools.partial(os.pread, archive.fileno())
                with gzip.open(path) as unzipped:
                    shutil.copyfileobj(unzipped, archive, 1 << 20)
            end = archive.seek(0, os.SEEK_END)
            archive.flush()
            return list(_members(archive, 0, end, read_at, nested))
    except (*_DAMAGE, zlib.error, gzip.BadGzipFile) as error:
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


def _members(
    archive: BinaryIO, start: int, end: int, read_at: Callable, nested: bool
) -> Iterator[tuple[str, Callable | None]]:
    """Names and readers of the tar at bytes `start` to `end` of a file; ``read_at(size, offset)`` reads that file."""
    # tarfile takes a file that was cut inside a header for a complete one; the end mark tells.
    archive.seek(max(start, end - 512))
    if archive.read(min(512, end - start)) != bytes(512):
        raise tarfile.ReadError("no end mark")
    archive.seek(start)
    with tarfile.open(fileobj=archive, mode="r:") as tar:
        for member in tar:
            # Behind a size below zero tarfile goes back, and reads the same members for ever
            if member.size < 0 or tar.offset <= member.offset:
                raise tarfile.ReadError(f"{member.name} has an impossible size")
            last = member.offset_data + member.size
            if member.isdir():
                yield member.name, None
            elif not member.isreg() or member.issparse():
                yield member.name, _no_file
            elif last > end:
                raise tarfile.ReadError(f"{member.name} ends beyond the archive")
            elif nested and member.name.endswith(".tar"):
                for name, read in _members(archive, member.offset_data, last, read_at, False):
                    yield f"{member.name}/{name}", read
            else:
                yield member.name, functools.partial(read_at, member.size, member.offset_data)


def _read_at(path: Path, size: int, offset: int) -> bytes:
    with open(path, "rb") as file:
        return os.pread(file.fileno(), size, offset)


def _no_file() -> bytes:
    raise OSError("a link or special file, whose content is not read")


def _parts(name: str) -> tuple[str, ...]:
    """Folders and file name of a name from outside; () for hidden files and for what climbs up with '..'."""
    # Names that are not UTF-8 arrive with surrogates, which neither HDF5 nor JSON readers take.
    parts = tuple(p for p in name.encode("utf-8", "replace").decode().split("/") if p not in ("", "."))
    return () if any(p.startswith(".") or p == "__MACOSX" for p in parts) else parts


def _class_folders(path: Path, listing: Iterable[tuple[str, Callable | None]]) -> Source:
    """Read splits and classes off the folder names; hidden files are left out."""
    files, folders = {}, set()
    for name, read in listing:
        if parts := _parts(name):
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
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no data set needs")
        return super().find_class(module, name)


def _unpickle(path: Path, archive: str, *keys: str) -> list[np.ndarray]:
    """Arrays of a pickled dict, perhaps gzipped; ``"train/labels"`` is a key in a dict in the dict."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            content = _ArrayUnpickler(file, encoding="latin1").load()
        return [np.asarray(functools.reduce(operator.getitem, key.split("/"), content)) for key in keys]
    except Exception as error:  # damaged pickles raise nearly anything
        raise LibranasError(
            f"{path} is not a file of {archive} with {', '.join(keys)} ({type(error).__name__}: {error}).",
            f"Download and unpack {archive} again.",
        ) from error


class _Cifar(NamedTuple):
    """Names in CIFAR's pickles, as torchvision unpacks them."""

    archive: str
    folder: str
    train: list[str]
    test: str
    labels: str
    meta: str
    names: str
    classes: int


_CIFAR = {
    "cifar10": _Cifar(
        "cifar-10-python.tar.gz",
        "cifar-10-batches-py",
        [f"data_batch_{i}" for i in range(1, 6)],
        "test_batch",
        "labels",
        "batches.meta",
        "label_names",
        10,
    ),
    "cifar100": _Cifar(
        "cifar-100-python.tar.gz", "cifar-100-python", ["train"], "test", "fine_labels", "meta", "fine_label_names", 100
    ),
}


@contextmanager
def cifar(adapter: str, path: Path | None) -> Iterator[Source]:
    """CIFAR-10 or CIFAR-100 (fine labels) as torchvision keeps it, or as JPEG bytes in one .npz file."""
    path = _given(path, adapter)
    if path.is_dir():
        classes, images, label_N, is_test_N = _cifar_batches(path, adapter)
    else:
        classes, images, label_N, is_test_N = _cifar_npz(path, adapter)
    source = _labelled(path, classes, images, label_N, is_test_N)
    expected = _CIFAR[adapter].classes
    if len(classes) != expected:
        raise LibranasError(
            f"{path} has {len(classes)} classes ({', '.join(classes[:3])}, ...); {adapter} has {expected}.",
            f"Set `data.path` to {LAYOUTS[adapter]}, or `data.adapter` to what the file holds.",
        )
    yield source


def _labelled(path: Path, classes: list[str], images: Sequence[Callable], label_N, is_test_N) -> Source:
    """Images that have a number instead of a name: ``train/0``, ``test/17``."""
    if not np.isin(label_N, range(len(classes))).all():
        raise LibranasError(f"{path}: not all labels are 0 to {len(classes) - 1}.", "Download it again.")
    source = Source(classes, {"train": [], "test": []})
    for load, label, is_test in zip(images, label_N.tolist(), is_test_N.tolist(), strict=True):
        split = "test" if is_test else "train"
        source.splits[split].append(Item(f"{split}/{len(source.splits[split])}", label, load))
    if not source.splits["test"]:
        del source.splits["test"]
    return source


def _cifar_batches(path: Path, adapter: str) -> tuple[list[str], list[Callable], np.ndarray, np.ndarray]:
    names = _CIFAR[adapter]
    base = path / names.folder if (path / names.folder).is_dir() else path
    files = [*names.train, names.test]
    needed = files if adapter == "cifar10" else [*files, names.meta]
    if lacking := [name for name in needed if not (base / name).is_file()]:
        raise _missing(adapter, f"{base} lacks {', '.join(lacking)}")
    meta = base / names.meta
    known = _unpickle(meta, names.archive, names.names)[0] if meta.is_file() else CIFAR10_CLASSES
    images, labels, is_test = [], [], []
    for name in files:
        data, label = _unpickle(base / name, names.archive, "data", names.labels)
        if data.dtype != np.uint8 or data.shape != (label.size, 3072):
            raise LibranasError(
                f"{base / name}: `data` is {data.dtype} {data.shape}, expected uint8 ({label.size}, 3072).",
                f"Download and unpack {names.archive} again.",
            )
        images += _planes(data.reshape(-1, 3, 32, 32))
        labels.append(label.ravel())
        is_test.append(np.full(label.size, name == names.test))
    return [str(name) for name in known], images, np.concatenate(labels), np.concatenate(is_test)


def _planes(images_NCSS: np.ndarray) -> list[Callable]:
    """Readers of images that are stored as planes of one colour each."""
    return [functools.partial(np.ascontiguousarray, image) for image in images_NCSS.transpose(0, 2, 3, 1)]


@contextmanager
def spherical_cifar100(path: Path | None) -> Iterator[Source]:
    """CIFAR-100 on the sphere, 60 x 60: NAS-Bench-360's file, or projected here (:mod:`libranas.sphere`).

    The projection is not that file: every image has a rotation of its own, which never changes, where the released
    generator turns 500 images in a row alike; and pixels keep their values, which it stretches to 0..255 in each image.
    """
    path = _given(path, "spherical_cifar100")
    public = path / "s2_cifar100.gz" if path.is_dir() else path
    if public.is_file():
        yield _public_sphere(public)
    else:
        with cifar("cifar100", path) as source:
            for items in source.splits.values():
                items[:] = [item._replace(load=functools.partial(_on_sphere, item)) for item in items]
            yield source


def _on_sphere(item: Item) -> np.ndarray:
    # The rotation belongs to the data set: it does not change with the seed of a run.
    return project(item.load(), random_rotation(stream_seed(0, "sphere", item.source)))


def _public_sphere(path: Path) -> Source:
    keys = [f"{split}/{what}" for what in ("images", "labels") for split in ("train", "test")]
    *images, train, test = _unpickle(path, "s2_cifar100.gz", *keys)
    for split, labels, found in zip(("train", "test"), (train, test), images, strict=True):
        if found.dtype != np.uint8 or found.shape != (labels.size, 3, 60, 60):
            raise LibranasError(
                f"{path}: images of {split} are {found.dtype} {found.shape}, "
                f"expected uint8 ({labels.size}, 3, 60, 60).",
                "Download s2_cifar100.gz again.",
            )
    is_test_N = np.repeat([False, True], [train.size, test.size])
    labels_N = np.concatenate([train.ravel(), test.ravel()])
    return _labelled(
        path, [str(i) for i in range(100)], [*_planes(images[0]), *_planes(images[1])], labels_N, is_test_N
    )


@contextmanager
def svhn(path: Path | None) -> Iterator[Source]:
    """Street View House Numbers, cropped digits at 32 px, as torchvision keeps them; the extra images are left out."""
    from scipy.io import loadmat

    path = _given(path, "svhn")
    images, labels, is_test = [], [], []
    for name in ("train_32x32.mat", "test_32x32.mat"):
        if not (path / name).is_file():
            raise _missing("svhn", f"{path} lacks {name}")
        try:
            content = loadmat(path / name)
            pixels_SSCN, label_N = content["X"], content["y"].ravel().astype(np.int64)
        except Exception as error:  # damaged files raise nearly anything
            raise LibranasError(
                f"{path / name} is not a MATLAB file with X and y ({type(error).__name__}: {error}).",
                f"Download {name} again.",
            ) from error
        if pixels_SSCN.dtype != np.uint8 or pixels_SSCN.shape != (32, 32, 3, label_N.size):
            raise LibranasError(
                f"{path / name}: X is {pixels_SSCN.dtype} {pixels_SSCN.shape}, expected uint8 (32, 32, 3, "
                f"{label_N.size}).",
                f"Download {name} again.",
            )
        images += _planes(pixels_SSCN.transpose(3, 2, 0, 1))
        labels.append(np.where(label_N == 10, 0, label_N))  # MATLAB counts from one: ten is the digit 0
        is_test.append(np.full(label_N.size, name.startswith("test")))
    yield _labelled(path, list("0123456789"), images, np.concatenate(labels), np.concatenate(is_test))


@contextmanager
def pets(path: Path | None) -> Iterator[Source]:
    """Oxford-IIIT Pets, 37 breeds, as torchvision keeps them: trainval.txt is train, test.txt is test."""
    path = _given(path, "pets")
    base = path / "oxford-iiit-pet" if (path / "oxford-iiit-pet").is_dir() else path
    splits, breeds = {}, {}
    for split, name in (("train", "trainval"), ("test", "test")):
        listing = base / "annotations" / f"{name}.txt"
        if not listing.is_file() or not (base / "images").is_dir():
            raise _missing("pets", f"{base} lacks images or annotations/{name}.txt")
        items = splits[split] = []
        for number, line in enumerate(listing.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            # An image's name from the file has neither slash nor dot, so it stays in the folder of the images.
            match = re.fullmatch(r"(([A-Za-z0-9_-]+)_\d+) (\d+) \d+ \d+", line)
            if not match or breeds.setdefault(int(match[3]), match[2]) != match[2]:
                raise LibranasError(
                    f"{listing}, line {number}: {line[:80]!r} is not 'IMAGE CLASS SPECIES BREED', one CLASS a breed.",
                    "Unpack annotations.tar.gz again.",
                )
            items.append(
                Item(f"images/{match[1]}.jpg", int(match[3]) - 1, (base / "images" / f"{match[1]}.jpg").read_bytes)
            )
    if sorted(breeds) != list(range(1, len(breeds) + 1)):
        raise LibranasError(f"{base}: the classes {sorted(breeds)} are not 1 to {len(breeds)}.", "Unpack it again.")
    yield Source([breeds[number] for number in sorted(breeds)], splits)


IMAGENET_COUNTS = {"train": 1_281_167, "test": 50_000}


@contextmanager
def imagenet(path: Path | None) -> Iterator[Source]:
    """ImageNet-1k (ILSVRC 2012). Its validation images are the split `test`: those that all publish accuracies of.

    Classes are WordNet ids in sorted order, the order that everyone's pretrained networks have. Images are found by
    their class folder or, in WebDataset shards, by the number in KEY.cls; Hugging Face's files are read by timm.
    """
    path = _given(path, "imagenet")
    from timm.data import ImageNetInfo  # imports torch, so not at the top

    synsets = ImageNetInfo().label_names()
    with ExitStack() as stack:
        if path.is_dir() and (any(path.glob("*.parquet")) or any(path.glob("*/*.parquet"))):
            source = _hugging_face(path, synsets)
        else:
            source = _synset_files(path, synsets, stack)
        for split, items in source.splits.items():
            found = {item.label for item in items}
            if lacking := [synset for label, synset in enumerate(synsets) if label not in found]:
                raise LibranasError(
                    f"{path}: {split} has images of {len(found)} of ImageNet-1k's 1000 classes; it lacks "
                    f"{', '.join(lacking[:5])}{', ...' if len(lacking) > 5 else ''}.",
                    "Complete the copy. A part of the classes is read by `data.adapter: folder`; fewer images of all "
                    "classes are a matter of `data.limit`.",
                )
            if len(items) != IMAGENET_COUNTS[split]:
                source.warnings.append(
                    f"{split} has {len(items):,} images, ImageNet-1k has {IMAGENET_COUNTS[split]:,}."
                )
        yield source


def _synset_files(path: Path, synsets: list[str], stack: ExitStack) -> Source:
    """Images below split and class folders, in tars or tars of tars or not; or next to their KEY.cls."""
    files = {parts: read for name, read in _expanded(path, stack) if read and (parts := _parts(name))}
    label_of = {synset: label for label, synset in enumerate(synsets)}
    source, flat = Source(synsets, {"train": [], "test": []}), []
    for parts, read in sorted(files.items(), key=lambda file: file[0]):
        # Its validation images are our test; its test images have no labels.
        split = {"train": "train", "val": "test"}.get(_named_split(parts))
        name, text = parts[-1], "/".join(parts)
        label_file = files.get((*parts[:-1], name.split(".")[0] + ".cls"))
        folders = [p.removesuffix(".tar") for p in parts[:-1]]
        synset = next((p for p in reversed(folders) if re.fullmatch(r"n\d{8}", p)), None)
        if not split or Path(name).suffix.lower() not in IMAGE_SUFFIXES:
            if not name.endswith(".cls"):
                source.ignored.append(text)
        elif synset and synset not in label_of:
            raise LibranasError(
                f"{path}: {text} is of the class {synset}, which is not one of ImageNet-1k's 1000.",
                "Remove it. Other classes of ImageNet are read by `data.adapter: folder`.",
            )
        elif synset or label_file:
            label = label_of[synset] if synset else _number(_label(label_file, text), text)
            _check_order(text, label, synsets)
            source.splits[split].append(Item(text, label, read))
        else:
            flat.append(text)
    if flat:
        raise LibranasError(
            f"{path}: {len(flat)} image(s) are in no class folder, such as {flat[0]}: their classes are unknown.",
            "Sort them into class folders, val/n01440764/ILSVRC2012_val_00000293.JPEG, as the development kit's "
            "ILSVRC2012_validation_ground_truth.txt says; torchvision.datasets.ImageNet(root, 'val') does it.",
        )
    if empty := [{"train": "train", "test": "val"}[split] for split, items in source.splits.items() if not items]:
        raise _missing("imagenet", f"{path}: no image of {' and '.join(empty)}")
    return source


def _named_split(parts: tuple[str, ...]) -> str | None:
    """The split in the innermost name of a folder or tar that has one: imagenet-train-and-val.tar/val/..."""
    for name in reversed(parts[:-1]):
        if found := re.findall(rf"(?<![a-z])({'|'.join(SPLIT_FOLDERS)})(?![a-z])", name.lower()):
            return SPLIT_FOLDERS[found[0]]
    return None


def _expanded(path: Path, stack: ExitStack) -> Iterator[tuple[str, Callable | None]]:
    """As :func:`_walk`, with tars in the place of folders too."""
    if not path.is_dir():
        yield from ((f"{path.name}/{name}", read) for name, read in _list_tar(path, stack, nested=True))
        return
    for name, read in _walk(path):
        if read and name.endswith((".tar", ".tar.gz")):
            yield from (
                (f"{name}/{inner}", inner_read) for inner, inner_read in _list_tar(path / name, stack, nested=True)
            )
        else:
            yield name, read


def _label(read: Callable, image: str) -> str:
    """What the .cls file of an image says."""
    try:
        content = read()
    except OSError as error:
        raise LibranasError(
            f"{image}: its .cls file cannot be read ({error.strerror or error}).", "Make the shards again."
        ) from error
    if len(content) > LONGEST_LABEL:
        raise LibranasError(
            f"{image}: its .cls file has {len(content):,} bytes; a class has up to {LONGEST_LABEL}.",
            "Make the shards again, with the number or the name of the class in it.",
        )
    return content.decode("utf-8", "replace").strip()


def _number(label: str, image: str) -> int:
    try:
        return int(label)
    except ValueError:
        raise LibranasError(
            f"{image}: its .cls file has {label[:20]!r}, not a number.", "Make the shards again."
        ) from None


def _check_order(image: str, label: int, synsets: list[str]) -> None:
    """Raise if a label is no class, or another one than that in the image's name (n01440764_10026.JPEG)."""
    named = re.findall(r"n\d{8}", image.rsplit("/", 1)[-1])
    if not 0 <= label < len(synsets) or (named and named[-1] != synsets[label]):
        raise LibranasError(
            f"{image} has the label {label}: not the place of its class in the sorted WordNet ids, 0 to 999.",
            "Use a copy with the labels of ILSVRC's classification task in this order, as of timm/imagenet-1k-wds.",
        )


@contextmanager
def webdataset(path: Path | None) -> Iterator[Source]:
    """WebDataset shards, read where they lie and in any order. Classes are numbers, which classes.txt may name; or
    names, in their sorted order."""
    path = _given(path, "webdataset")
    with ExitStack() as stack:
        files = {parts: read for name, read in _expanded(path, stack) if read and (parts := _parts(name))}
        found, ignored = [], []
        for parts, read in sorted(files.items(), key=lambda file: file[0]):
            text, split, suffix = "/".join(parts), _named_split(parts), Path(parts[-1]).suffix.lower()
            label = files.get((*parts[:-1], parts[-1].split(".")[0] + ".cls"))
            if split and label and suffix in IMAGE_SUFFIXES:
                found.append((split, text, _label(label, text), read))
            elif suffix in IMAGE_SUFFIXES:
                ignored.append(text)
        if not any(split == "train" for split, *_ in found):
            raise _missing("webdataset", f"{path}: no image with a .cls file in a shard of the split train")
        yield _named_or_numbered(path, found, ignored)


def _named_or_numbered(path: Path, found: list[tuple], ignored: list[str]) -> Source:
    labels = {label for _, _, label, _ in found}
    listing = path / "classes.txt"
    if all(label.isdecimal() for label in labels):
        highest = max(map(int, labels))
        if listing.is_file():
            names = listing.read_text(encoding="utf-8", errors="replace").split("\n")
            classes = [name.strip() for name in names if name.strip()]
            if len(classes) <= highest:
                raise LibranasError(
                    f"{listing} names {len(classes)} classes, but there is a label {highest}.", "Labels count from 0."
                )
        elif highest >= MOST_CLASSES:
            image = next(text for _, text, label, _ in found if int(label) == highest)
            raise LibranasError(
                f"{image} has the label {highest}: more than {MOST_CLASSES:,} classes.",
                "Labels count from 0, a number a class: make the shards again with such numbers, or with names.",
            )
        else:
            classes = [str(number) for number in range(highest + 1)]
        label_of = {label: int(label) for label in labels}
    else:
        classes = sorted(labels)
        label_of = {name: number for number, name in enumerate(classes)}
    source = Source(classes, {}, ignored)
    for split, text, label, read in found:
        source.splits.setdefault(split, []).append(Item(text, label_of[label], read))
    return source


@contextmanager
def hugging_face(path: Path | None) -> Iterator[Source]:
    """A data set in Hugging Face's parquet files, with the splits train and, if they exist, validation and test."""
    path = _given(path, "hugging_face")
    if not any(shard.name.startswith("train") for shard in [*path.glob("*.parquet"), *path.glob("*/*.parquet")]):
        raise _missing("hugging_face", f"{path} has no train-*.parquet")
    source = Source([], {})
    for name in filter(SPLIT_FOLDERS.get, _hugging_face_splits(path)):
        reader, label_N = _read_hugging_face(path, name, "hugging_face")
        known = sorted(reader.class_to_idx, key=reader.class_to_idx.get) if reader.class_to_idx else []
        source.classes = source.classes or [str(c) for c in known] or [str(c) for c in range(int(label_N.max()) + 1)]
        if not 0 <= label_N.min() <= label_N.max() < len(source.classes):
            raise LibranasError(
                f"{path}: labels of {name} are {label_N.min()} to {label_N.max()}, of {len(source.classes)} classes.",
                "Unlabelled images (-1) cannot be used.",
            )
        source.splits[SPLIT_FOLDERS[name]] = _reader_items(reader, name, label_N)
    yield source


def _hugging_face(path: Path, synsets: list[str]) -> Source:
    source = Source(synsets, {})
    for split, name in (("train", "train"), ("test", "validation")):
        reader, label_N = _read_hugging_face(path, name, "imagenet")
        for label, first in zip(*np.unique(label_N, return_index=True), strict=True):
            _check_order(reader.filename(int(first), basename=True) or "", int(label), synsets)
        source.splits[split] = _reader_items(reader, name, label_N)
    return source


def _datasets(path: Path):
    """Hugging Face's library; that it is missing timm's reader would only print."""
    try:
        import datasets
    except ImportError as error:
        raise LibranasError(
            f"{path} has Hugging Face's parquet files; reading them needs the package `{error.name}`.",
            "Install it: pip install 'libranas[hf]'",
        ) from error
    return datasets


def _hugging_face_splits(path: Path) -> list[str]:
    """Names of the splits; the library calls files named valid, val or dev ``validation``."""
    datasets = _datasets(path)
    try:
        return datasets.get_dataset_split_names(str(path))
    except Exception as error:  # the library has many of its own
        raise LibranasError(
            f"{path}: its parquet files cannot be told apart by split ({type(error).__name__}: {error}).",
            f"Set `data.path` to {LAYOUTS['hugging_face']}.",
        ) from error


def _read_hugging_face(path: Path, name: str, adapter: str) -> tuple:
    """timm's reader of a split, and the labels."""
    _datasets(path)
    from timm.data.readers import create_reader

    try:
        reader = create_reader(f"hfds/{path}", split=name)
        return reader, np.fromiter(reader.iter_targets(), np.int64)
    except Exception as error:  # the library has many of its own
        raise LibranasError(
            f"{path}: no split '{name}' with the columns image and label ({type(error).__name__}: {error}).",
            f"Set `data.path` to {LAYOUTS[adapter]}.",
        ) from error


def _reader_items(reader, name: str, label_N: np.ndarray) -> list[Item]:
    loads = (functools.partial(_read_reader, reader, i) for i in range(len(label_N)))
    labelled = zip(label_N.tolist(), loads, strict=True)
    return [Item(f"{name}/{i}", label, load) for i, (label, load) in enumerate(labelled)]


def _read_reader(reader, index: int) -> bytes:
    with reader[index][0] as file:
        return file.read()


def _cifar_npz(path: Path, adapter: str) -> tuple[list[str], list[Callable], np.ndarray, np.ndarray]:
    keys = ("blob", "offset", "label", "is_test", "classes")
    todo = f"Set `data.path` to {LAYOUTS[adapter]}."
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
ADAPTERS = {
    "digits": digits,
    "folder": folder,
    "cifar10": functools.partial(cifar, "cifar10"),
    "cifar100": functools.partial(cifar, "cifar100"),
    "spherical_cifar100": spherical_cifar100,
    "svhn": svhn,
    "pets": pets,
    "imagenet": imagenet,
    "webdataset": webdataset,
    "hugging_face": hugging_face,
}


@contextmanager
def opened(kind: str, path: Path | None, called: str) -> Iterator[Source]:
    """A source where there is no configuration: what its errors say of ``data.path`` is said of what it is `called`."""
    try:
        with ADAPTERS[kind](path) as source:
            yield source
    except LibranasError as error:
        what = error.what.replace(f" (data.adapter is '{kind}')", "").replace("data.path", called)
        raise LibranasError(what, re.sub("`data.path`( in the config)?", f"`{called}`", error.todo)) from error


def read_npz(path: str | os.PathLike, keys: Sequence[str], todo: str) -> list[np.ndarray]:
    """Arrays of an .npz file, never unpickled; whatever is wrong with the file is named in the error."""
    if not Path(path).is_file():
        raise LibranasError(f"{path} does not exist.", todo)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return [arrays[key] for key in keys]
    except Exception as error:  # zipfile, zlib and numpy each have their own
        # numpy takes what is no archive for a pickle, and recommends to load it unsafely
        reason = "it is no zip archive" if isinstance(error, ValueError) and "pickle" in str(error) else error
        raise LibranasError(f"{path} is not an .npz file with {', '.join(keys)} ({reason}).", todo) from error
