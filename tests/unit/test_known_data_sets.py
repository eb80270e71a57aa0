"""Adapters of known data sets: their published layouts with few images, and what is said of bad copies."""

import gzip
import io
import itertools
import json
import os
import pickle
import sys
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pytest
import torchvision
from PIL import Image
from scipy.io import savemat
from timm.data import ImageNetInfo

from libranas.core.errors import LibranasError
from libranas.core.random import stream_seed
from libranas.data.adapters.listing import TAR_DAMAGE, tar_members, walk
from libranas.data.adapters.spherical_cifar import project, random_rotation
from libranas.data.prepare import prepare
from libranas.data.reading import load_split
from libranas.data.registry import DATA_SETS

SYNSETS = ImageNetInfo().label_names()


def settings(adapter: str, path, size=32, **changes) -> dict:
    base = {"adapter": adapter, "path": str(path), "image_size": size, "channels": 3, "max_broken": 0}
    return base | {"splits": {"val": 0.25, "test": 0.25}, "limit": None, "calibration": 8} | changes


def refused(adapter: str, path, *said: str) -> None:
    with pytest.raises(LibranasError) as caught, DATA_SETS[adapter].open(Path(path)):
        pass
    for words in said:
        assert words in str(caught.value)


def noise(n: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, *shape), dtype=np.uint8)


def jpeg(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


# CIFAR-100


def cifar100(base: Path, n_train=400, n_test=200) -> dict[str, np.ndarray]:
    base.mkdir(parents=True)
    pixels = {"train": noise(n_train, 3072), "test": noise(n_test, 3072)}
    for split, data in pixels.items():
        fine = [i % 100 for i in range(len(data))]
        content = {"data": data, "fine_labels": fine, "coarse_labels": [i // 5 for i in fine], "filenames": ["a.png"]}
        (base / split).write_bytes(pickle.dumps(content, protocol=2))
    names = {"fine_label_names": [f"thing{i}" for i in range(100)], "coarse_label_names": ["x"] * 20}
    (base / "meta").write_bytes(pickle.dumps(names, protocol=2))
    return pixels


def test_cifar100_is_what_torchvision_reads(tmp_path, monkeypatch):
    cifar100(tmp_path / "cifar-100-python")
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "_check_integrity", lambda self: True)
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda path, md5: True)
    for path in (tmp_path, tmp_path / "cifar-100-python"):
        with DATA_SETS["cifar100"].open(path) as source:
            for split, items in source.splits.items():
                theirs = torchvision.datasets.CIFAR100(tmp_path, train=split == "train")
                assert len(items) == len(theirs) and source.classes == theirs.classes
                for item, (image, label) in zip(items, theirs, strict=True):
                    np.testing.assert_array_equal(item.load(), np.asarray(image))
                    assert item.label == label


def test_a_bad_copy_of_cifar100_is_named(tmp_path):
    base = tmp_path / "cifar-100-python"
    cifar100(base)
    (base / "meta").unlink()
    refused("cifar100", tmp_path, "lacks meta", DATA_SETS["cifar100"].layout)
    (base / "meta").write_bytes(pickle.dumps({"fine_label_names": ["only", "two"]}))
    refused("cifar100", tmp_path, "not all labels are 0 to 1")
    (base / "test").write_bytes(pickle.dumps(os.system))
    refused("cifar100", tmp_path, "test is not a file of cifar-100-python.tar.gz", "system")


# Spherical CIFAR-100


def test_spherical_cifar100_is_cifar100_projected(tmp_path):
    pixels = cifar100(tmp_path / "cifar-100-python")
    with DATA_SETS["spherical_cifar100"].open(tmp_path) as source:
        items = source.splits["test"]
        assert [item.label for item in items[:3]] == [0, 1, 2] and len(items) == 200
        turned = random_rotation(stream_seed(0, "sphere", "test/7"))
        image = pixels["test"][7].reshape(3, 32, 32).transpose(1, 2, 0)
        np.testing.assert_array_equal(items[7].load(), project(image, turned))
        assert items[7].load().shape == (60, 60, 3)
    first = prepare(settings("spherical_cifar100", tmp_path, 60), tmp_path / "a", 0)
    again = prepare(settings("spherical_cifar100", tmp_path, 60), tmp_path / "b", 1)
    assert first["splits"]["test"]["sha256"] == again["splits"]["test"]["sha256"]  # the seed of a run turns nothing


def test_the_published_sphere_is_read(tmp_path):
    images = {"train": noise(120, 3, 60, 60), "test": noise(100, 3, 60, 60)}
    content = {split: {"images": x, "labels": np.arange(len(x)) % 100} for split, x in images.items()}
    file = tmp_path / "s2_cifar100.gz"
    file.write_bytes(gzip.compress(pickle.dumps(content), 1))
    for path in (tmp_path, file):
        with DATA_SETS["spherical_cifar100"].open(path) as source:
            assert [len(items) for items in source.splits.values()] == [120, 100] and len(source.classes) == 100
            for split, x in images.items():
                item = source.splits[split][99]
                np.testing.assert_array_equal(item.load(), x[99].transpose(1, 2, 0))
                assert item.label == 99
    content["test"]["images"] = images["test"][:, :, :30]
    file.write_bytes(gzip.compress(pickle.dumps(content), 1))
    refused("spherical_cifar100", tmp_path, "images of test are uint8 (100, 3, 30, 60)")
    file.write_bytes(file.read_bytes()[:900])
    refused("spherical_cifar100", tmp_path, "is not a file of s2_cifar100.gz")


def test_spherical_cifar10_is_made_of_files_too(tmp_path):
    images = [jpeg(i) for i in range(20)]
    arrays = {"blob": np.frombuffer(b"".join(images), np.uint8), "offset": np.cumsum([0, *map(len, images)])}
    arrays |= {"label": np.arange(20) % 10, "is_test": np.arange(20) >= 10, "classes": [f"c{i}" for i in range(10)]}
    np.savez(tmp_path / "cifar10.npz", **arrays)
    with DATA_SETS["spherical_cifar10"].open(tmp_path / "cifar10.npz") as source:
        item = source.splits["test"][3]
        image, turned = (
            np.asarray(Image.open(io.BytesIO(images[13]))),
            random_rotation(stream_seed(0, "sphere", "test/3")),
        )
        np.testing.assert_array_equal(item.load(), project(image, turned))
        assert item.label == 3


# Fashion-MNIST


def fashion_mnist(folder: Path, opened=open, suffix="") -> None:
    folder.mkdir(parents=True)
    for prefix, n in (("train", 40), ("t10k", 20)):
        label_N = (np.arange(n) % 10).astype(np.uint8)
        for what, values in (("images-idx3", noise(n, 28, 28)), ("labels-idx1", label_N)):
            header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4) for size in values.shape)
            with opened(folder / f"{prefix}-{what}-ubyte{suffix}", "wb") as file:
                file.write(header + values.tobytes())


def test_fashion_mnist_is_what_torchvision_reads(tmp_path):
    fashion_mnist(tmp_path / "FashionMNIST/raw")
    fashion_mnist(tmp_path / "packed", gzip.open, ".gz")
    for folder in ("FashionMNIST/raw", "packed"):
        with DATA_SETS["fashion_mnist"].open(tmp_path / folder) as source:
            for split, items in source.splits.items():
                theirs = torchvision.datasets.FashionMNIST(tmp_path, split == "train")
                for item, (image, label) in zip(items, theirs, strict=True):
                    np.testing.assert_array_equal(item.load(), np.asarray(image))
                    assert item.label == label
    assert (
        prepare(settings("fashion_mnist", tmp_path / "packed", channels=1), tmp_path / "a", 0)["classes"][9]
        == "ankle boot"
    )


def test_a_bad_copy_of_fashion_mnist_is_named(tmp_path):
    refused("fashion_mnist", tmp_path, "lacks train-images-idx3-ubyte", DATA_SETS["fashion_mnist"].layout)
    fashion_mnist(tmp_path / "bad")
    images, labels = (tmp_path / f"bad/train-{what}-ubyte" for what in ("images-idx3", "labels-idx1"))
    labels.write_bytes(labels.read_bytes()[:-1])
    refused("fashion_mnist", tmp_path / "bad", "train-labels-idx1-ubyte is not an IDX file of [40] unsigned bytes")
    labels.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 39]) + bytes(39))
    refused("fashion_mnist", tmp_path / "bad", "images (40, 28, 28) and 39 labels")
    for content in (b"", b"\0\0\x08\x03\0"):
        images.write_bytes(content)
        refused("fashion_mnist", tmp_path / "bad", "train-images-idx3-ubyte")
    images.rename(f"{images}.gz")
    refused("fashion_mnist", tmp_path / "bad", "train-images-idx3-ubyte.gz cannot be read")


# SVHN


def test_svhn_is_what_torchvision_reads(tmp_path, monkeypatch):
    for split, n in (("train", 40), ("test", 20)):
        y = (np.arange(n) % 10 + 1).astype(np.uint8)[:, None]
        savemat(tmp_path / f"{split}_32x32.mat", {"X": noise(n, 32, 32, 3).transpose(1, 2, 3, 0), "y": y})
    monkeypatch.setattr(torchvision.datasets.SVHN, "_check_integrity", lambda self: True)
    with DATA_SETS["svhn"].open(tmp_path) as source:
        assert source.classes == list("0123456789")
        for split, items in source.splits.items():
            theirs = torchvision.datasets.SVHN(tmp_path, split)
            assert len(items) == len(theirs)
            for item, (image, label) in zip(items, theirs, strict=True):
                np.testing.assert_array_equal(item.load(), np.asarray(image))
                assert item.label == label


def test_a_bad_copy_of_svhn_is_named(tmp_path):
    refused("svhn", tmp_path, "lacks train_32x32.mat", DATA_SETS["svhn"].layout)
    (tmp_path / "train_32x32.mat").write_bytes(b"no MATLAB file")
    refused("svhn", tmp_path, "train_32x32.mat is not a MATLAB file")
    savemat(tmp_path / "train_32x32.mat", {"X": np.zeros((32, 32, 3, 4), np.uint8), "y": np.ones(5)})
    refused("svhn", tmp_path, "uint8 (32, 32, 3, 4), expected uint8 (32, 32, 3, 5)")


# Pets


def pets(root: Path) -> None:
    (root / "oxford-iiit-pet/images").mkdir(parents=True)
    (root / "oxford-iiit-pet/annotations").mkdir()
    breeds = ["Abyssinian", "american_bulldog", "Maine_Coon"]
    for split, first in (("trainval", 1), ("test", 31)):
        lines = [f"{b}_{i} {k} 1 1" for k, b in enumerate(breeds, 1) for i in range(first, first + 20)]
        (root / f"oxford-iiit-pet/annotations/{split}.txt").write_text("\n".join(lines) + "\n")
        for i, line in enumerate(lines):
            (root / f"oxford-iiit-pet/images/{line.split()[0]}.jpg").write_bytes(jpeg(first + i))


def test_pets_are_what_torchvision_reads(tmp_path):
    pets(tmp_path)
    with DATA_SETS["pets"].open(tmp_path) as source:
        assert source.classes == ["Abyssinian", "american_bulldog", "Maine_Coon"]
        for ours, split in (("train", "trainval"), ("test", "test")):
            theirs = torchvision.datasets.OxfordIIITPet(tmp_path, split)
            assert len(source.splits[ours]) == len(theirs) == 60
            for item, (image, label) in zip(source.splits[ours], theirs, strict=True):
                np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(item.load()))), np.asarray(image))
                assert item.label == label
    manifest = prepare(settings("pets", tmp_path, 12), tmp_path / "out", 0)
    assert [manifest["splits"][s]["count"] for s in ("train", "val", "test")] == [45, 15, 60]


@pytest.mark.parametrize("line", ["../../secret_1 1 1 1", "/etc/secret_1 1 1 1", "cat_1 1", "", "dog_1 1 1 1"])
def test_a_strange_line_of_pets_is_named(tmp_path, line):
    pets(tmp_path)
    listing = tmp_path / "oxford-iiit-pet/annotations/test.txt"
    listing.write_text(listing.read_text() + line + "\n")
    refused("pets", tmp_path, "test.txt, line 61", "IMAGE CLASS SPECIES BREED")


def test_a_bad_copy_of_pets_is_named(tmp_path):
    refused("pets", tmp_path, "lacks images or annotations/trainval.txt", DATA_SETS["pets"].layout)
    pets(tmp_path)
    (tmp_path / "oxford-iiit-pet/images/Maine_Coon_1.jpg").unlink()
    with pytest.raises(LibranasError, match=r"images/Maine_Coon_1.jpg: No such file"):
        prepare(settings("pets", tmp_path), tmp_path / "out", 0)


# ImageNet-1k


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", **header) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in header.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(content))


def tar_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members.items():
            add(tar, name, content)
    return buffer.getvalue()


def folder_names(split: str, per_class=1) -> dict[str, bytes]:
    return {f"{split}/{s}/{s}_{i}.JPEG": jpeg(k % 50) for k, s in enumerate(SYNSETS) for i in range(per_class)}


def shard(prefix: str, labels) -> bytes:
    members = {}
    for k in labels:
        members[f"{prefix}{SYNSETS[k]}_1.jpg"] = jpeg(k % 50)
        members[f"{prefix}{SYNSETS[k]}_1.cls"] = str(k).encode()
        members[f"{prefix}{SYNSETS[k]}_1.json"] = b"{}"
    return tar_of(members)


def as_folder(root: Path) -> Path:
    for name, content in {**folder_names("train"), **folder_names("val")}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def as_tar(root: Path) -> Path:
    (root / "both.tar").write_bytes(tar_of({**folder_names("ILSVRC/train"), **folder_names("ILSVRC/val")}))
    return root / "both.tar"


def as_tars(root: Path) -> Path:
    """The archive of training images as it is published, and another one of sorted validation images."""
    classes = {f"{s}.tar": tar_of({f"{s}_0.JPEG": jpeg(k % 50)}) for k, s in enumerate(SYNSETS)}
    (root / "ILSVRC2012_img_train.tar").write_bytes(tar_of(classes))
    (root / "ILSVRC2012_img_val.tar").write_bytes(tar_of({n[4:]: c for n, c in folder_names("val").items()}))
    return root


def as_shards(root: Path) -> Path:
    for i in range(2):
        (root / f"imagenet1k-train-000{i}.tar").write_bytes(shard("", range(i * 500, i * 500 + 500)))
    (root / "imagenet1k-validation-00.tar").write_bytes(shard("x/", range(1000)))
    return root


@pytest.mark.parametrize("lay_out", [as_folder, as_tar, as_tars, as_shards])
def test_imagenet_in_each_layout(tmp_path, lay_out):
    with DATA_SETS["imagenet"].open(lay_out(tmp_path)) as source:
        assert source.classes == SYNSETS == sorted(SYNSETS)
        assert set(source.splits) == {"train", "test"}
        for items in source.splits.values():
            assert sorted(item.label for item in items) == list(range(1000))
            for item in items:
                assert SYNSETS[item.label] in item.source and item.load() == jpeg(item.label % 50)
        assert source.warnings == [
            "train has 1,000 images, ImageNet-1k has 1,281,167.",
            "test has 1,000 images, ImageNet-1k has 50,000.",
        ]


def test_an_imagenet_is_prepared_and_what_is_odd_is_kept(tmp_path):
    path = tmp_path / "both.tar"
    path.write_bytes(tar_of({**folder_names("train", 3), **folder_names("val")}))
    config = settings("imagenet", path, 8, splits={"val": 0.4, "test": 0.2}, limit={"train": 1500})
    manifest = prepare(config, tmp_path / "out", 0)
    assert [manifest["splits"][s]["count"] for s in ("train", "val", "test")] == [1500, 1200, 1000]
    assert manifest["warnings"][0].startswith("train has 3,000 images")
    assert json.loads((tmp_path / "out/manifest.json").read_text())["warnings"] == manifest["warnings"]
    images, labels = load_split(tmp_path / "out/images.h5", "test")
    assert len(images) == 1000 and sorted(labels.tolist()) == list(range(1000))


def test_copies_of_imagenet_that_are_not_whole_are_named(tmp_path):
    def written(members: dict) -> Path:
        (tmp_path / "both.tar").write_bytes(tar_of(members))
        return tmp_path / "both.tar"

    train, val = folder_names("train"), folder_names("val")
    refused("imagenet", written(train), "no image of val", DATA_SETS["imagenet"].layout)
    some = dict(list(val.items())[3:])
    refused("imagenet", written({**train, **some}), "test has images of 997", SYNSETS[0], "adapter: folder")
    odd = written({**train, **val, "train/n99999999/n99999999_1.JPEG": jpeg(0)})
    refused("imagenet", odd, "n99999999", "not one of ImageNet-1k's 1000")
    flat = {f"val/ILSVRC2012_val_{i:08}.JPEG": jpeg(i) for i in range(5)}
    refused(
        "imagenet", written({**train, **flat}), "5 image(s) are in no class folder", "val_00000000", "class folders"
    )


def test_flat_archives_of_validation_images_and_test_images(tmp_path):
    as_tars(tmp_path)
    (tmp_path / "ILSVRC2012_img_test.tar").write_bytes(tar_of({"ILSVRC2012_test_00000001.JPEG": jpeg(0)}))
    with DATA_SETS["imagenet"].open(tmp_path) as source:
        assert source.ignored == ["ILSVRC2012_img_test.tar/ILSVRC2012_test_00000001.JPEG"]
    (tmp_path / "ILSVRC2012_img_val.tar").write_bytes(tar_of({"ILSVRC2012_val_00000001.JPEG": jpeg(0)}))
    refused("imagenet", tmp_path, "ILSVRC2012_img_val.tar/ILSVRC2012_val_00000001.JPEG", "in no class folder")


def test_shards_in_another_order_of_classes_are_refused(tmp_path):
    as_shards(tmp_path)
    members = {f"{SYNSETS[5]}_1.jpg": jpeg(0), f"{SYNSETS[5]}_1.cls": b"6"}
    (tmp_path / "extra-train.tar").write_bytes(tar_of(members))
    refused("imagenet", tmp_path, "has the label 6", "sorted WordNet ids")
    for wrong, said in ((b"1000", "has the label 1000"), (b"cat", "not a number")):
        (tmp_path / "extra-train.tar").write_bytes(tar_of({"a.jpg": jpeg(0), "a.cls": wrong}))
        refused("imagenet", tmp_path, "extra-train.tar/a.jpg", said)


def test_a_tar_in_a_tar_that_is_cut_is_named(tmp_path):
    as_tars(tmp_path)
    whole = tar_of({"n01440764_0.JPEG": jpeg(0), "n01440764_1.JPEG": jpeg(1)})
    for length in (100, 700, len(jpeg(0)) // 2 + 512):
        (tmp_path / "ILSVRC2012_img_train.tar").write_bytes(tar_of({"n01440764.tar": whole[:length]}))
        refused("imagenet", tmp_path, "ILSVRC2012_img_train.tar", "cut off or damaged")


def test_hugging_face_files_without_their_library(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train-00000-of-00001.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "datasets", None)
    refused("imagenet", tmp_path, "needs the package `datasets`", "libranas[hf]")


def parquet(root: Path, name: str, labels: list[int]) -> None:
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=[f"thing {s}" for s in SYNSETS])}
    (root / "data").mkdir(exist_ok=True)
    rows = {
        "image": [{"bytes": jpeg(k % 50), "path": f"{SYNSETS[k]}_1_{SYNSETS[k]}.JPEG"} for k in range(1000)],
        "label": labels,
    }
    table = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    table.to_parquet(root / f"data/{name}-00000-of-00001.parquet")


def test_hugging_face_files(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    root = tmp_path / "imagenet-1k"
    root.mkdir()
    parquet(root, "train", list(range(1000)))
    refused("imagenet", root, "no split 'validation'")
    parquet(root, "validation", list(range(1000)))
    with DATA_SETS["imagenet"].open(root) as source:
        for items in source.splits.values():
            assert [item.label for item in items] == list(range(1000))
            assert items[777].load() == jpeg(777 % 50)
        assert source.splits["test"][3].source == "validation/3"
    parquet(root, "validation", list(reversed(range(1000))))
    refused("imagenet", root, "has the label", "sorted WordNet ids")


# WebDataset shards and Hugging Face's files of any data set


def samples(labels: dict[str, bytes]) -> bytes:
    members = [{f"{key}.jpg": jpeg(i), f"{key}.cls": label} for i, (key, label) in enumerate(labels.items())]
    return tar_of({name: content for sample in members for name, content in sample.items()})


def test_shards_with_numbered_classes(tmp_path):
    (tmp_path / "pets-train-000.tar").write_bytes(samples({"a": b"2", "b": b"0"}))
    (tmp_path / "pets-train-001.tar").write_bytes(samples({"c": b"1\n"}))
    (tmp_path / "pets-val-000.tar").write_bytes(samples({"a": b"1"}))
    with DATA_SETS["webdataset"].open(tmp_path) as source:
        assert source.classes == ["0", "1", "2"] and set(source.splits) == {"train", "val"}
        assert [item.label for item in source.splits["train"]] == [2, 0, 1]
        assert source.splits["train"][1].load() == jpeg(1)
        assert source.splits["val"][0].source == "pets-val-000.tar/a.jpg"
    (tmp_path / "classes.txt").write_text("cat\ndog\nhamster\n")
    with DATA_SETS["webdataset"].open(tmp_path) as source:
        assert source.classes == ["cat", "dog", "hamster"]
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    refused("webdataset", tmp_path, "classes.txt names 2 classes, but there is a label 2")


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_each_name_of_the_validation_shards(tmp_path, name):
    (tmp_path / "x-train-0.tar").write_bytes(samples({"a": b"0"}))
    (tmp_path / f"x-{name}-0.tar").write_bytes(samples({"b": b"0"}))
    with DATA_SETS["webdataset"].open(tmp_path) as source:
        assert [item.source for item in source.splits["val"]] == [f"x-{name}-0.tar/b.jpg"]
        assert not source.ignored


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (b"4000000000", "has the label 4000000000: more than 1,000,000 classes"),
        (b"9" * 5000, "its .cls file has 5,000 bytes; a class has up to 1000"),
    ],
)
def test_labels_of_impossibly_many_classes(tmp_path, label, said):
    (tmp_path / "train.tar").write_bytes(samples({"a": b"0", "b": label}))
    refused("webdataset", tmp_path, "train.tar/b.jpg", said)


@pytest.mark.parametrize("adapter", ["webdataset", "imagenet"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_a_label_that_is_a_link_is_named(tmp_path, adapter, kind):
    with tarfile.open(tmp_path / "train.tar", "w") as tar:
        add(tar, "a.jpg", jpeg(0))
        add(tar, "a.cls", type=kind, linkname="/etc/passwd")
    refused(adapter, tmp_path, "train.tar/a.jpg: its .cls file cannot be read", "a link or special file")


def test_a_label_that_is_a_broken_link_in_a_folder_is_named(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train/a.jpg").write_bytes(jpeg(0))
    (tmp_path / "train/a.cls").symlink_to("nowhere")
    refused("webdataset", tmp_path, "train/a.jpg: its .cls file cannot be read (No such file")


def test_shards_with_named_classes(tmp_path):
    (tmp_path / "train.tar").write_bytes(samples({"a": b"dog", "b": b"cat"}))
    (tmp_path / "test.tar").write_bytes(tar_of({"x/a.png": b"1", "x/a.cls": b"dog", "x/lonely.png": b"2"}))
    with DATA_SETS["webdataset"].open(tmp_path) as source:
        assert source.classes == ["cat", "dog"]
        assert [(s, item.label) for s, items in source.splits.items() for item in items] == [
            *(("test", 1), ("train", 1), ("train", 0)),
        ]
        assert source.ignored == ["test.tar/x/lonely.png"]
    (tmp_path / "train.tar").unlink()
    refused("webdataset", tmp_path, "no image with a .cls file in a shard of the split train")
    refused("webdataset", tmp_path / "nowhere", "does not exist")


def test_hugging_face_files_of_any_data_set(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    root = tmp_path / "pets"
    (root / "data").mkdir(parents=True)
    refused("hugging_face", root, "has no train-*.parquet")

    def write(name, labels, label=datasets.ClassLabel(names=["cat", "dog"])):  # noqa: B008 - a constant
        features = datasets.Features({"image": datasets.Image(), "label": label})
        rows = {"image": [{"bytes": jpeg(k), "path": None} for k in range(len(labels))], "label": labels}
        table = datasets.Dataset.from_dict(rows, features=features)
        table.to_parquet(root / f"data/{name}-00000-of-00001.parquet")

    write("train", [1, 0, 1])
    write("validation", [0])
    with DATA_SETS["hugging_face"].open(root) as source:
        assert source.classes == ["cat", "dog"] and set(source.splits) == {"train", "val"}
        assert [item.label for item in source.splits["train"]] == [1, 0, 1]
        assert source.splits["train"][2].load() == jpeg(2)
    (root / "data/validation-00000-of-00001.parquet").unlink()
    for name in ("val", "valid", "dev"):
        for part in ("train", name):
            write(part, [1, 0])
            (root / f"data/{part}-00000-of-00001.parquet").rename(root / f"{part}.parquet")
        with DATA_SETS["hugging_face"].open(root) as source:
            assert {s: len(items) for s, items in source.splits.items()} == {"train": 2, "val": 2}
        (root / f"{name}.parquet").unlink()
    (root / "train.parquet").unlink()
    write("train", [1, 0, 1])
    write("test", [0, -1])
    refused("hugging_face", root, "labels of test are -1 to 0, of 2 classes")
    (root / "data/test-00000-of-00001.parquet").write_bytes(b"no parquet")
    refused("hugging_face", root, "with the columns image and label")


def test_hugging_face_files_with_plain_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    rows = {"image": [{"bytes": jpeg(k), "path": None} for k in range(3)], "label": [2, 0, 1]}
    (root := tmp_path / "numbers").mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(root / "train-0.parquet")
    with DATA_SETS["hugging_face"].open(root) as source:
        assert source.classes == ["0", "1", "2"] and [item.label for item in source.splits["train"]] == [2, 0, 1]


# Names from outside


HOSTILE = {
    "../../outside/{}.png": {},
    "train/cat/../../../../outside/{}.png": {},
    "/etc/outside/{}.png": {},
    "train/cat/symbolic{}.png": {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
    "train/cat/hard{}.png": {"type": tarfile.LNKTYPE, "linkname": "../../../etc/passwd"},
    "train/cat/device{}.png": {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5},
    "train/cat/pipe{}.png": {"type": tarfile.FIFOTYPE},
    "train/outside": {"type": tarfile.SYMTYPE, "linkname": "/"},
}


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("adapter", ["folder", "imagenet", "webdataset"])
def test_no_member_of_a_tar_leads_outside(tmp_path, mode, adapter):
    """Nothing is extracted: a hostile tar writes no file, opens no other file, and its links are no images."""
    classes = SYNSETS if adapter == "imagenet" else ["cat", "dog"]
    path = tmp_path / "in" / "hostile.tar"
    path.parent.mkdir()
    with tarfile.open(path, mode) as tar:
        for split in ("train", "val", "test")[: 2 if adapter == "imagenet" else 3]:
            for name in classes:
                add(tar, f"{split}/{name}/{name}_0.jpg", jpeg(0))
                if adapter == "webdataset":
                    add(tar, f"{split}/{name}/{name}_0.cls", name.encode())
        for name, header in HOSTILE.items():
            name = name.replace("cat", classes[0]).format(0)
            add(tar, name, b"" if header else jpeg(1), **header)
            if adapter == "webdataset" and name.endswith(".png"):
                add(tar, name.replace(".png", ".cls"), classes[0].encode())
        add(tar, f"train/{classes[1]}/{classes[1]}_0.jpg", jpeg(2))  # once more: the last one counts, as tar has it
    before = sorted(tmp_path.rglob("*"))
    opened = []
    sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" else None)
    with DATA_SETS[adapter].open(path) as source:
        images = {item.source.removeprefix("hostile.tar/"): item.load for item in source.splits["train"]}
        refusals, contents = set(), {}
        for name, load in images.items():
            try:
                contents[name] = load()
            except OSError as error:
                assert "a link or special file" in str(error)
                refusals.add(name.rsplit("/", 1)[1])
    assert refusals == {"symbolic0.png", "hard0.png", "device0.png", "pipe0.png"}
    assert set(contents) == {f"train/{name}/{name}_0.jpg" for name in classes}
    assert contents[f"train/{classes[1]}/{classes[1]}_0.jpg"] == jpeg(2)
    assert sorted(tmp_path.rglob("*")) == before
    touched = {str(name) for name in opened if isinstance(name, (str, os.PathLike))}
    assert not {name for name in touched if "outside" in name or "passwd" in name}


#: Headers, as changes of a TarInfo, with sizes that no file has.
IMPOSSIBLE = {
    "short": {"size": -1},
    "one block back": {"size": -512},
    "two blocks back": {"size": -1024},
    "before the archive": {"size": -(1 << 20)},
    "a folder": {"size": -512, "type": tarfile.DIRTYPE},
    "a kind that nobody knows": {"size": -512, "type": b"Q"},
    "a header of names": {"size": -512, "type": tarfile.GNUTYPE_LONGNAME},
    "a header of pax": {"size": -512, "type": tarfile.XHDTYPE},
    "a header of terabytes": {"size": 1 << 60, "type": tarfile.XHDTYPE},
    "a header beyond all files": {"size": 1 << 80, "type": tarfile.XHDTYPE},
    "beyond all files": {"size": 1 << 80},
}


def impossible_tar(layout: int, header: dict, sparse: bool = False) -> bytes:
    """A folder of classes, each image with its .cls, and then a member with an impossible size."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=layout) as tar:
        for name in ("cat", "dog"):
            add(tar, f"train/{name}/{name}_0.jpg", jpeg(0))
            add(tar, f"train/{name}/{name}_0.cls", name.encode())
        end = tar.offset
    member = tarfile.TarInfo("train/cat/hostile.jpg")
    for key, value in header.items():
        setattr(member, key, value)
    block = bytearray(member.tobuf(layout))
    if sparse:  # such a header has a size beside that of the file
        block[483:495] = b"00000001000\0"
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
    return buffer.getvalue()[:end] + block + bytes(10240)


def refused_at_once(tmp_path: Path, adapter: str, mode: str, content: bytes) -> None:
    members = tar_members(io.BytesIO(content), 0, len(content), lambda size, offset: b"", False)
    with pytest.raises(TAR_DAMAGE):  # before the adapters, which without the refusal would read for ever
        list(itertools.islice(members, 1000))
        pytest.fail("the members are read again and again")
    path = tmp_path / ("train.tar.gz" if mode == "gz" else "train.tar")
    path.write_bytes(gzip.compress(content) if mode == "gz" else content)
    refused(adapter, path, path.name, "cut off or damaged")


@pytest.mark.parametrize("mode", ["tar", "gz"])
@pytest.mark.parametrize("adapter", ["folder", "imagenet", "webdataset"])
@pytest.mark.parametrize("layout", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("header", IMPOSSIBLE)
def test_a_member_with_an_impossible_size_is_refused(tmp_path, mode, adapter, layout, header):
    refused_at_once(tmp_path, adapter, mode, impossible_tar(layout, IMPOSSIBLE[header]))


def test_a_sparse_member_that_leads_back_is_refused(tmp_path):
    header = {"size": -512, "type": tarfile.GNUTYPE_SPARSE}
    refused_at_once(tmp_path, "folder", "tar", impossible_tar(tarfile.GNU_FORMAT, header, sparse=True))


# Links in folders


def test_links_to_folders_elsewhere_are_followed_and_links_back_are_not(tmp_path):
    root, pool = tmp_path / "pets", tmp_path / "pool"
    for place in (root / "cat", root / "dog", pool / "more", root / ".all" / "bird"):
        place.mkdir(parents=True)
        (place / f"{place.name}.jpg").write_bytes(jpeg(0))
    (root / "cat/elsewhere").symlink_to(pool / "more")
    (root / "dog/elsewhere").symlink_to(pool / "more")
    (root / "bird").symlink_to(".all/bird")
    for link, target in (
        *((root / "cat/up", ".."), (root / "dog/up", ".."), (root / "cat/here", ".")),
        *((root / "dog/above", "../.."), (pool / "more/back", root / "cat"), (root / "dog/link.jpg", root)),
    ):
        link.symlink_to(target)
    assert len(list(itertools.islice(walk(root), 100))) < 100  # where they are followed it never ends
    with DATA_SETS["folder"].open(root) as source:
        assert source.classes == ["bird", "cat", "dog"]
        assert [item.source for item in source.splits["train"] if item.source != "dog/link.jpg"] == [
            *("bird/bird.jpg", "cat/cat.jpg", "cat/elsewhere/more.jpg", "dog/dog.jpg"),
            *("dog/elsewhere/back/cat.jpg", "dog/elsewhere/more.jpg"),
        ]
        assert source.ignored == [
            *("cat/elsewhere/back", "cat/here", "cat/up", "dog/above"),
            *("dog/elsewhere/back/elsewhere", "dog/elsewhere/back/here", "dog/elsewhere/back/up", "dog/up"),
        ]
