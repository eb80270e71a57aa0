"""CIFAR-10 and CIFAR-100 in their published files, or in an .npz."""

import functools
import gzip
import itertools
import operator
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from libranas.core.errors import LibranasError
from libranas.data.source import LAYOUTS, Item, Source, _given, _missing, read_npz

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
