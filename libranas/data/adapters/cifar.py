"""CIFAR-10 and CIFAR-100 in their published files, or in an .npz."""

import functools
import gzip
import itertools
import operator
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from libranas.core.errors import LibranasError
from libranas.data.source import DataSet, Item, Source, read_npz

CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


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


def unpickle(path: Path, archive: str, *keys: str) -> list[np.ndarray]:
    """Read arrays of a pickled dict, perhaps gzipped; ``"train/labels"`` is a key in a dict in the dict."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            content = _ArrayUnpickler(file, encoding="latin1").load()
        return [np.asarray(functools.reduce(operator.getitem, key.split("/"), content)) for key in keys]
    except Exception as error:  # damaged pickles raise nearly anything
        raise LibranasError(
            f"{path} is not a file of {archive} with {', '.join(keys)} ({type(error).__name__}: {error}).",
            f"Download and unpack {archive} again.",
        ) from error


class _Files(NamedTuple):
    """Names in CIFAR's pickles, as torchvision unpacks them."""

    archive: str
    folder: str
    train: list[str]
    test: str
    labels: str
    meta: str
    names: str
    classes: int


_FILES10 = _Files(
    "cifar-10-python.tar.gz",
    "cifar-10-batches-py",
    [f"data_batch_{i}" for i in range(1, 6)],
    "test_batch",
    "labels",
    "batches.meta",
    "label_names",
    10,
)
_FILES100 = _Files(
    "cifar-100-python.tar.gz", "cifar-100-python", ["train"], "test", "fine_labels", "meta", "fine_label_names", 100
)


@contextmanager
def _cifar(files: _Files, path: Path) -> Iterator[Source]:
    """Read CIFAR-10 or CIFAR-100 (fine labels) as torchvision keeps it, or as JPEG bytes in one .npz file."""
    data_set = CIFAR10 if files is _FILES10 else CIFAR100
    classes, splits = _read_batches(path, files, data_set) if path.is_dir() else _read_npz(path, data_set)
    source = labelled(path, classes, splits)
    if len(classes) != files.classes:
        raise LibranasError(
            f"{path} has {len(classes)} classes ({', '.join(classes[:3])}, ...); {data_set.name} has {files.classes}.",
            f"Set `data.path` to {data_set.layout}, or `data.adapter` to what the file holds.",
        )
    yield source


def labelled(path: Path, classes: list[str], splits: dict[str, tuple[list[Callable], list[int]]]) -> Source:
    """Return images that have a number instead of a name (``train/0``), from readers and labels of each split."""
    source = Source(classes, {})
    for split, (images, labels) in splits.items():
        if not np.isin(labels, range(len(classes))).all():
            raise LibranasError(f"{path}: not all labels are 0 to {len(classes) - 1}.", "Download it again.")
        numbered = enumerate(zip(images, labels, strict=True))
        source.splits[split] = [Item(f"{split}/{i}", label, load) for i, (load, label) in numbered]
    if not source.splits["test"]:
        del source.splits["test"]
    return source


def _read_batches(path: Path, names: _Files, data_set: DataSet) -> tuple:
    base = path / names.folder if (path / names.folder).is_dir() else path
    files = [*names.train, names.test]
    needed = files if names is _FILES10 else [*files, names.meta]
    if lacking := [name for name in needed if not (base / name).is_file()]:
        raise data_set.missing(f"{base} lacks {', '.join(lacking)}")
    meta = base / names.meta
    known = unpickle(meta, names.archive, names.names)[0] if meta.is_file() else CIFAR10_CLASSES
    splits = {"train": ([], []), "test": ([], [])}
    for name in files:
        data, label = unpickle(base / name, names.archive, "data", names.labels)
        if data.dtype != np.uint8 or data.shape != (label.size, 3072):
            raise LibranasError(
                f"{base / name}: `data` is {data.dtype} {data.shape}, expected uint8 ({label.size}, 3072).",
                f"Download and unpack {names.archive} again.",
            )
        images, labels = splits["test" if name == names.test else "train"]
        images += planes(data.reshape(-1, 3, 32, 32))
        labels += label.ravel().tolist()
    return [str(name) for name in known], splits


def planes(images_NCSS: np.ndarray) -> list[Callable]:
    """Return readers of images that are stored as planes of one colour each."""
    return [functools.partial(np.ascontiguousarray, image) for image in images_NCSS.transpose(0, 2, 3, 1)]


def _read_npz(path: Path, data_set: DataSet) -> tuple:
    keys = ("blob", "offset", "label", "is_test", "classes")
    todo = f"Set `data.path` to {data_set.layout}."
    blob, offset, label, is_test, names = map(np.ravel, read_npz(path, keys, todo))
    offset, counts = offset.astype(np.int64), {len(offset) - 1, len(label), len(is_test)}
    edges = np.concatenate([[0], offset, [len(blob)]])
    if blob.dtype != np.uint8 or len(counts) > 1 or (np.diff(edges) < 0).any():
        raise LibranasError(
            f"{path}: `blob`, `offset`, `label` and `is_test` do not fit together.",
            "Image i must be blob[offset[i]:offset[i+1]] (uint8), with a label and an is_test for each.",
        )
    splits = {"train": ([], []), "test": ([], [])}
    numbers = label.astype(np.int64).tolist()
    for (a, b), number, tested in zip(itertools.pairwise(offset), numbers, is_test, strict=True):
        images, labels = splits["test" if tested else "train"]
        images.append(blob[a:b].tobytes)
        labels.append(number)
    return [str(name) for name in names], splits


CIFAR10 = DataSet(
    "cifar10",
    functools.partial(_cifar, _FILES10),
    "the folder with `cifar-10-batches-py` (unpacked: `data_batch_1` to `data_batch_5`, `test_batch`), or an .npz with "
    "`blob`, `offset`, `label`, `is_test`, `classes`",
    "train, test",
)
CIFAR100 = DataSet(
    "cifar100",
    functools.partial(_cifar, _FILES100),
    "the folder with `cifar-100-python` (unpacked: `train`, `test`, `meta`; fine labels), or an .npz with `blob`, "
    "`offset`, `label`, `is_test`, `classes`",
    "train, test",
)
