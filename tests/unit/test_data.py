"""Preparing data: splits, decoding, hashes, the calibration batch, and what is said about bad input."""

import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from sklearn.datasets import load_digits

from libranas.core.errors import LibranasError
from libranas.data.adapters.cifar import CIFAR10_CLASSES
from libranas.data.adapters.listing import SPLIT_FOLDERS
from libranas.data.calibration import calibration_indices, readout_images
from libranas.data.decode import decode
from libranas.data.formats import IMAGE_SUFFIXES
from libranas.data.prepare import prepare
from libranas.data.reading import load_calibration, load_split, open_images
from libranas.data.registry import DATA_SETS
from libranas.data.source import SPLITS, DataSet, Item, Source

OUTPUTS = ["calibration.npz", "images.h5", "manifest.json"]


def settings(**changes) -> dict:
    base = {
        "adapter": "digits",
        "path": None,
        "image_size": 8,
        "channels": 1,
        "splits": {"val": 0.15, "test": 0.2},
        "limit": None,
        "max_broken": 0,
        "calibration": 8,
    }
    return base | changes


def folder_settings(path, **changes) -> dict:
    return settings(adapter="folder", path=str(path), channels=3, calibration=4) | changes


def write_image(path: Path, seed: int, shape=(10, 12, 3), **options) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return pixels


def image_folder(root: Path, splits=("train/", "validation/", "test/"), per_class=6) -> Path:
    for s, split in enumerate(splits):
        for c, name in enumerate(("cat", "dog")):
            for i in range(per_class):
                write_image(root / f"{split}{name}/{i}.png", seed=100 * s + 10 * c + i)
    return root


def refused(tmp_path: Path, config: dict, *said: str) -> str:
    """prepare() must fail, say all of `said`, and leave no file behind."""
    with pytest.raises(LibranasError) as caught:
        prepare(config, tmp_path / "out", 0)
    for words in said:
        assert words in str(caught.value)
    assert not list((tmp_path / "out").glob("**/*"))
    return str(caught.value)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """All digits prepared once: folder, manifest."""
    out = tmp_path_factory.mktemp("digits")
    return out, prepare(settings(calibration=64), out, 0)


def png(pixels: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


# Digits: splits, statistics, hashes


def test_digits_are_split_once_each_and_in_proportion(digits):
    out, manifest = digits
    assert sorted(os.listdir(out)) == OUTPUTS
    assert {split: entry["count"] for split, entry in manifest["splits"].items()} == {
        "train": 1797 - 270 - 359,
        "val": 270,
        "test": 359,
    }
    everything = np.bincount(load_digits().target)
    for share, split in ((0.15, "val"), (0.2, "test"), (0.65, "train")):
        counts = np.array(list(manifest["splits"][split]["per_class"].values()))
        assert np.abs(counts - share * everything).max() <= 1.5
    with open_images(out / "images.h5") as file:
        names = [name.decode() for split in SPLITS for name in file[split]["source"]]
    assert sorted(names) == sorted(f"digits/{i}" for i in range(1797))


def test_pixels_and_labels_are_those_of_the_source(digits):
    bunch = load_digits()
    for split in SPLITS:
        images, labels = load_split(digits[0] / "images.h5", split)
        assert images.dtype == np.uint8 and images.shape[1:] == (1, 8, 8) and labels.dtype == np.int64
        with open_images(digits[0] / "images.h5") as file:
            index = [int(name.decode().split("/")[1]) for name in file[split]["source"]]
        assert index == sorted(index)
        np.testing.assert_array_equal(images[:, 0], np.round(bunch.images[index] * 255 / 16))
        np.testing.assert_array_equal(labels, bunch.target[index])


def test_statistics_and_hashes_are_those_of_the_file(digits):
    out, manifest = digits
    for split in SPLITS:
        images, labels = load_split(out / "images.h5", split)
        packed = images.transpose(0, 2, 3, 1).tobytes() + labels.tobytes()
        assert hashlib.sha256(packed).hexdigest() == manifest["splits"][split]["sha256"]
    train = load_split(out / "images.h5", "train")[0] / 255
    np.testing.assert_allclose(manifest["mean"], train.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(manifest["std"], train.std(axis=(0, 2, 3)), rtol=1e-12)
    assert json.loads((out / "manifest.json").read_text()) == manifest


def test_calibration_batch_is_balanced_normalised_training_images(digits):
    out, manifest = digits
    inputs, targets = load_calibration(out / "calibration.npz")
    assert inputs.dtype == np.float32 and inputs.shape == (64, 1, 8, 8) and targets.dtype == np.int64
    assert set(np.bincount(targets)) == {6, 7}
    assert not (np.diff(targets) >= 0).all()  # shuffled
    packed = inputs.tobytes() + targets.tobytes()
    assert manifest["calibration"] == {"count": 64, "sha256": hashlib.sha256(packed).hexdigest()}
    pixels = np.round((inputs * manifest["std"][0] + manifest["mean"][0]) * 255)
    images, labels = load_split(out / "images.h5", "train")
    known = {(image.tobytes(), label) for image, label in zip(images, labels, strict=True)}
    found = {(image.astype(np.uint8).tobytes(), label) for image, label in zip(pixels, targets, strict=True)}
    assert found <= known and len(found) == 64


@pytest.mark.parametrize(("least", "count"), [(100, 100), (8, 20), (10_000, 1168)])
def test_readout_images_are_balanced_and_begin_with_the_calibration_batch(digits, least, count):
    out, manifest = digits
    inputs, targets = readout_images(out / "images.h5", manifest, least, 0)
    assert len(inputs) == len(targets) == count and manifest["splits"]["train"]["count"] == 1168
    counts = np.bincount(targets)
    assert counts.max() - counts.min() <= 1 or count == 1168
    batch = {image.tobytes() for image in load_calibration(out / "calibration.npz")[0]}
    more = {image.tobytes() for image in inputs}
    assert batch <= more if count >= 64 else more <= batch


def test_same_seed_gives_the_same_bytes_in_another_process(digits, tmp_path):
    out, _ = digits
    code = (
        "import sys, json; from libranas.data.prepare import prepare; prepare(json.loads(sys.argv[1]), sys.argv[2], 0)"
    )
    arguments = [sys.executable, "-c", code, json.dumps(settings(calibration=64)), str(tmp_path)]
    subprocess.run(arguments, check=True, cwd=Path(__file__).parents[2])
    for name in ("manifest.json", "calibration.npz"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes()


def test_content_hash_of_digits_is_pinned(digits):
    # If this changes, results of all later stages do: raise the version of the stage `prepare`.
    assert digits[1]["content_sha256"][:12] == "c12cbf64c55e"


def test_another_seed_gives_other_splits_and_another_batch(digits, tmp_path):
    other = prepare(settings(calibration=64), tmp_path, 1)
    assert other["splits"]["test"]["sha256"] != digits[1]["splits"]["test"]["sha256"]
    assert other["calibration"]["sha256"] != digits[1]["calibration"]["sha256"]


def test_workers_and_batches_do_not_change_the_result(tmp_path, monkeypatch):
    config = settings(limit={"train": 50, "val": 20, "test": 20})
    first = prepare(config, tmp_path / "a", 0, workers=1)
    monkeypatch.setattr("libranas.data.decode.DECODE_BATCH", 7)
    assert prepare(config, tmp_path / "b", 0, workers=4) == first


def test_limits_are_stratified(tmp_path):
    manifest = prepare(settings(limit={"train": 100, "val": 30, "test": None}), tmp_path, 0)
    assert [manifest["splits"][split]["count"] for split in SPLITS] == [100, 30, 359]
    assert set(manifest["splits"]["train"]["per_class"].values()) <= {9, 10, 11}
    assert "limited to 30" in manifest["split_rule"]["val"]


def test_a_limit_just_below_the_split_is_fine(tmp_path):
    # leaves a rest that is smaller than the number of classes
    manifest = prepare(settings(limit={"train": 1165, "val": None, "test": None}), tmp_path, 0)
    assert manifest["splits"]["train"]["count"] == 1165


def test_digits_are_scaled_to_the_size_and_channels_asked(tmp_path):
    limit = {"train": 20, "val": 10, "test": 10}
    manifest = prepare(settings(image_size=12, channels=3, limit=limit), tmp_path, 0)
    images, _ = load_split(tmp_path / "images.h5", "val")
    assert images.shape == (10, 3, 12, 12) and len(manifest["mean"]) == 3
    with open_images(tmp_path / "images.h5") as file:
        index = int(file["val"]["source"][0].decode().split("/")[1])
    original = Image.fromarray(np.round(load_digits().images[index] * 255 / 16).astype(np.uint8))
    expected = np.asarray(original.resize((12, 12), Image.Resampling.BICUBIC))
    for channel in images[0]:
        np.testing.assert_array_equal(channel, expected)


def test_progress_sees_every_image(tmp_path):
    seen = {}

    def progress(iterable, total, label):
        seen[label] = [total, 0]
        for item in iterable:
            seen[label][1] += 1
            yield item

    prepare(settings(limit={"train": 20, "val": 10, "test": 10}), tmp_path, 0, progress=progress)
    assert seen == {"train images": [20, 20], "val images": [10, 10], "test images": [10, 10]}


# The calibration batch


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(1, 40), st.integers(0, 99))
@example([3, 3, 3], 2, 0)  # more classes than images
@example([9, 1, 9], 12, 0)  # a class that runs out
def test_calibration_counts_are_as_equal_as_possible(counts, batch, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    if len(labels) < batch:
        with pytest.raises(LibranasError, match=r"data\.calibration"):
            calibration_indices(labels, batch, seed)
        return
    chosen = calibration_indices(labels, batch, seed)
    assert len(chosen) == len(set(chosen.tolist())) == batch
    np.testing.assert_array_equal(chosen, calibration_indices(labels, batch, seed))
    got = np.bincount(labels[chosen], minlength=len(counts))
    # No image can be exchanged for one of a class that has fewer in the batch and some left.
    left = np.array(counts) > got
    assert not left.any() or got.max() - got[left].min() <= 1


# Image folders


def test_a_folder_with_splits_is_read_as_it_is(tmp_path):
    root = image_folder(tmp_path / "pets")
    (root / "train/cat/notes.txt").write_text("not an image by name")
    (root / "train/.DS_Store").write_bytes(b"hidden")
    manifest = prepare(folder_settings(root), tmp_path / "out", 0)
    assert manifest["classes"] == ["cat", "dog"] and manifest["source"] == "pets"
    assert [manifest["splits"][s]["count"] for s in SPLITS] == [12, 12, 12]
    assert manifest["split_rule"]["val"] == "as in the data set"
    assert manifest["ignored"] == {"count": 2, "first": ["train/.DS_Store", "train/cat/notes.txt"]}
    assert manifest["warnings"] == [
        "2 file(s) passed over (no images, or without a class): 1 hidden, such as train/.DS_Store; "
        "1 .txt, such as train/cat/notes.txt."
    ]
    with open_images(tmp_path / "out/images.h5") as file:
        assert file["val"]["source"][7].decode() == "validation/dog/1.png"
    assert str(tmp_path) not in (tmp_path / "out/manifest.json").read_text()


#: Names of images that need not have the suffix of their kind, of files that are none, and of links.
ODD_NAMES = {
    "JPEG": ["a.jfif", "b.jpe", "c", "d.JPG", "e.photo", "f.jpg.part", "g.txt"],
    "PNG": ["h.apng", "i", "j.jpg"],
    "WEBP": ["k"],
    "GIF": ["l"],
    "BMP": ["m"],
    "TIFF": ["n", "o.TIF"],
    "PPM": ["p"],
    "AVIF": ["q.avif", "r"],
    "JPEG2000": ["s.jp2", "t"],
}
NO_IMAGES = {
    **{
        "Thumbs.db": b"\xd0\xcf\x11\xe0",
        "notes.txt": b"P1 is a note",
        "BM": b"BMW, a car",
        "photo.heic": b"\0\0\0\x18ftypheic",
    },
    **{".DS_Store": b"hidden", "._a.jpg": b"hidden", ".jpg": b"hidden", "__MACOSX/a.jpg": b"hidden", "empty": b""},
    **{"raw.NEF": b"II*\0\x08\0\0\0", "short": b"\xff\xd8", "drawing.svg": b"<svg/>"},
}


@pytest.mark.parametrize("mode", [None, "w", "w:bz2", "w:xz"])
def test_content_tells_an_image_and_what_is_passed_over_is_named(tmp_path, mode):
    root = image_folder(tmp_path / "pets", ("train/",), per_class=4)
    for kind, names in ODD_NAMES.items():
        for name in names:
            Image.fromarray(PIXELS).save(root / "train/cat" / name, kind)
    for name, content in NO_IMAGES.items():
        (root / "train/dog" / name).parent.mkdir(exist_ok=True)
        (root / "train/dog" / name).write_bytes(content)
    (root / "README").write_text("pets")
    os.mkfifo(root / "train/dog/pipe")
    (root / "train/dog/nowhere").symlink_to("gone")
    path = root
    if mode:
        with tarfile.open(path := tmp_path / "archive", mode) as tar:
            tar.add(root, ".")
    with DATA_SETS["folder"].open(path) as source:
        found = {item.source: item for item in source.splits["train"]}
        cats = {f"train/cat/{name}" for names in ODD_NAMES.values() for name in names}
        assert found.keys() == cats | {f"train/{name}/{i}.png" for name in ("cat", "dog") for i in range(4)}
        assert all(decode(item.load(), 6, 3).shape == (6, 6, 3) for item in found.values())
        passed = {f"train/dog/{name}" for name in [*NO_IMAGES, "pipe", "nowhere"]} | {"README"}
        assert sorted(source.ignored) == sorted(passed)
        (said,) = source.warnings
        assert said.startswith(f"{len(passed)} file(s) passed over") and "1 .heic, such as train/dog/photo.heic" in said
        assert "4 hidden, such as train/dog/" in said and "6 without a suffix, such as" in said


def test_names_that_are_not_utf_8_stay_apart(tmp_path):
    for name in (b"\xff", b"\xfe"):
        write_image(tmp_path / "pets/cat/0.png", 0)
        os.rename(tmp_path / "pets/cat/0.png", os.fsencode(tmp_path / "pets/cat") + b"/" + name + b".png")
    write_image(tmp_path / "pets/dog/0.png", 0)
    with DATA_SETS["folder"].open(tmp_path / "pets") as source:
        names = ["cat/\\udcfe.png", "cat/\\udcff.png", "dog/0.png"]
        assert [item.source for item in source.splits["train"]] == names
        assert all(decode(item.load(), 6, 3).any() for item in source.splits["train"])


@pytest.mark.parametrize("splits", [("train/",), ("train/", "val/"), ("Train/", "TEST/"), ("",), ("outer/",)])
def test_missing_splits_are_cut_from_the_training_images(tmp_path, splits):
    root = image_folder(tmp_path / "pets", splits, per_class=20)
    manifest = prepare(folder_settings(root, calibration=8), tmp_path / "out", 0)
    own = {SPLIT_FOLDERS.get(split[:-1].lower()) for split in splits}
    expected = {"val": 40 if "val" in own else 6, "test": 40 if "test" in own else 8}
    expected["train"] = 40 - sum(n for split, n in expected.items() if split not in own)
    for split, count in expected.items():
        entry = manifest["splits"][split]
        assert entry["count"] == count and set(entry["per_class"].values()) == {count / 2}
    with open_images(tmp_path / "out/images.h5") as file:
        names = [name for split in SPLITS for name in file[split]["source"]]
    assert len(set(names)) == 40 * len(splits)


def test_a_class_may_be_called_train(tmp_path):
    for name in ("bus", "train"):
        for i in range(12):
            write_image(tmp_path / f"vehicles/{name}/{i}.png", seed=i)
    manifest = prepare(folder_settings(tmp_path / "vehicles"), tmp_path / "out", 0)
    assert manifest["classes"] == ["bus", "train"]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("outer", ["", "some/outer/"])
def test_a_tar_gives_what_its_folder_gives(tmp_path, mode, outer):
    root = image_folder(tmp_path / "pets")
    expected = prepare(folder_settings(root), tmp_path / "a", 0)
    archive = tmp_path / "pets.tar"
    files = sorted(root.rglob("*.png"), key=lambda path: path.name)  # another order than that of reading
    with tarfile.open(archive, mode) as tar:
        for file in files:
            tar.add(file, outer + file.relative_to(root).as_posix())
    assert prepare(folder_settings(archive), tmp_path / "b", 0)["content_sha256"] == expected["content_sha256"]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_cut_tar_is_named_wherever_it_was_cut(tmp_path, mode):
    root, archive = image_folder(tmp_path / "pets"), tmp_path / "pets.tar"
    with tarfile.open(archive, mode) as tar:
        tar.add(root, "pets")
        start = tar.getmembers()[-1].offset
    whole = archive.read_bytes()
    cuts = [start, start + 100, start + 512] if mode == "w" else []
    for length in [0, 1, len(whole) // 3, len(whole) // 2, *cuts]:
        archive.write_bytes(whole[:length])
        refused(tmp_path, folder_settings(archive), "pets.tar", "cut off or damaged")
    if mode == "w":
        archive.write_bytes(whole[:start] + b"\xff" + whole[start + 1 :])
        refused(tmp_path, folder_settings(archive), "pets.tar", "cut off or damaged")
        archive.write_bytes(whole + whole)
        refused(tmp_path, folder_settings(archive), "members follow the end mark")


def test_a_link_in_a_tar_is_a_broken_image(tmp_path):
    root, archive = image_folder(tmp_path / "pets"), tmp_path / "pets.tar"
    (root / "train/cat/link.png").symlink_to("0.png")
    with tarfile.open(archive, "w") as tar:
        tar.add(root, "pets")
    refused(tmp_path, folder_settings(archive), "pets/train/cat/link.png: a link")


def broken_folder(tmp_path: Path) -> Path:
    root = image_folder(tmp_path / "pets")
    (root / "train/cat/text.jpg").write_text("this is no image")
    (root / "train/dog/empty.png").write_bytes(b"")
    whole = (root / "val.png", write_image(root / "val.png", 7, (64, 64, 3)))[0].read_bytes()
    (root / "val.png").unlink()
    (root / "validation/dog/cut.png").write_bytes(whole[: len(whole) // 2])
    return root


def test_broken_images_are_named_counted_and_refused(tmp_path):
    root = broken_folder(tmp_path)
    said = refused(tmp_path, folder_settings(root), "3 broken image(s)", "data.max_broken", "text.jpg: not an image")
    assert "train/dog/empty.png: the file is empty" in said and "validation/dog/cut.png: " in said
    refused(tmp_path, folder_settings(root, max_broken=2), "3 broken image(s)", "allows 2")


def test_allowed_broken_images_are_left_out_and_listed(tmp_path):
    clean = prepare(folder_settings(image_folder(tmp_path / "clean/pets")), tmp_path / "clean/out", 0)
    manifest = prepare(folder_settings(broken_folder(tmp_path), max_broken=3), tmp_path / "out", 0)
    assert manifest["broken"]["count"] == 3
    named = {(b["split"], b["source"]) for b in manifest["broken"]["images"]}
    assert ("val", "validation/dog/cut.png") in named and ("train", "train/cat/text.jpg") in named
    assert "0x" not in json.dumps(manifest["broken"]) and str(tmp_path) not in json.dumps(manifest)
    assert manifest["content_sha256"] == clean["content_sha256"]


def test_only_the_first_ten_broken_images_are_listed(tmp_path):
    root = image_folder(tmp_path / "pets")
    for i in range(14):
        (root / f"train/cat/bad{i:02}.png").write_text("no")
    said = refused(tmp_path, folder_settings(root), "14 broken image(s)", "bad09.png")
    assert "bad10.png" not in said


def test_too_large_an_image_is_broken(tmp_path, monkeypatch):
    root = image_folder(tmp_path / "pets")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10 * 12)
    write_image(root / "test/cat/large.png", 1, (11, 12, 3))
    with pytest.warns(Image.DecompressionBombWarning):
        refused(tmp_path, folder_settings(root), "1 broken", "test/cat/large.png: 12 x 11 pixels")


def test_a_class_lost_to_broken_images_is_an_error(tmp_path):
    root = image_folder(tmp_path / "pets")
    for path in (root / "train/dog").iterdir():
        path.write_text("no")
    refused(tmp_path, folder_settings(root, max_broken=100), "train split has no image of class 'dog'", "6 broken")


# Decoding


def test_the_shorter_side_is_scaled_and_the_centre_kept():
    ramp = np.tile(np.arange(0, 240, 4, dtype=np.uint8), (20, 1))  # 20 high, 60 wide
    got = decode(png(ramp), 10, 1)[..., 0]
    resized = Image.fromarray(ramp).resize((30, 10), Image.Resampling.BICUBIC)
    expected = np.asarray(resized.crop((10, 0, 20, 10)))
    np.testing.assert_array_equal(got[:, 1:-1], expected[:, 1:-1])
    assert np.abs(got.astype(int) - expected).max() <= 4  # at the edge, scaling does not look past the cut


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_every_image_suffix_can_be_decoded(tmp_path, suffix):
    grey = np.full((8, 8), 77, np.uint8)
    Image.fromarray(grey).save(tmp_path / f"x{suffix}")
    got = decode((tmp_path / f"x{suffix}").read_bytes(), 8, 1)
    assert np.abs(got[..., 0].astype(int) - grey).max() <= 1  # JPEG and WebP are lossy


PIXELS = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
TURNED = struct.pack("<HHII", 0x0112, 3, 1, 6)  # an EXIF entry: to be turned by 90 degrees clockwise


def exif(*entries: bytes) -> bytes:
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)


@pytest.mark.parametrize(
    "metadata",
    [
        exif(TURNED),
        exif(TURNED, struct.pack("<HHI4s", 0x0128, 2, 2, b"2")),  # the unit of the resolution as text
        exif(struct.pack("<HHI4s", 0x0100, 2, 3, b"96"), TURNED),  # the width as text
        exif(TURNED, struct.pack("<HHII", 0x011A, 5, 1, 4)),  # the resolution 0 / 0
        exif(TURNED, struct.pack("<HHII", 0x8769, 4, 1, 2**32 - 1)),  # further entries beyond the end
        exif(TURNED, struct.pack("<HHII", 0x8769, 4, 1, 8)),  # further entries that are these again
    ],
)
def test_exif_orientation_is_honoured_whatever_else_the_metadata_say(metadata):
    np.testing.assert_array_equal(decode(png(PIXELS, exif=metadata), 6, 3), np.rot90(PIXELS, -1))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "metadata",
    [
        *(b"Exif\0\0\0\1not a tiff", b"Exif\0\0", b"Exif\0\0II*\0", exif(TURNED)[:20]),
        *(exif(struct.pack("<HHI4s", 0x0112, 2, 2, b"6")), exif(struct.pack("<HHII", 0x0112, 3, 1, 99))),
    ],
)
def test_an_image_without_a_readable_orientation_is_an_image(kind, metadata):
    files = []
    for more in ({}, {"exif": metadata, "icc_profile": b"no profile"}):
        Image.fromarray(PIXELS).save(buffer := io.BytesIO(), kind, **more)
        files.append(buffer.getvalue())
    np.testing.assert_array_equal(decode(files[1], 6, 3), decode(files[0], 6, 3))


def test_a_png_with_damaged_or_long_comments_is_an_image_and_one_with_damaged_pixels_is_none():
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", "x" * 2**21, zip=True)
    file = png(PIXELS, pnginfo=info, exif=exif(TURNED))
    damaged = file.replace(b"zTXtworkflow", b"zTXtwarkflow")
    for data in (file, damaged):
        np.testing.assert_array_equal(decode(data, 6, 3), np.rot90(PIXELS, -1))
    at = damaged.index(b"IDAT") + 20
    for data in (damaged[:at] + bytes(4) + damaged[at + 4 :], damaged[:at], damaged[: at - 22]):
        with pytest.raises((OSError, SyntaxError)):
            decode(data, 6, 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_kinds_of_pixels(channels):
    grey = np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)
    deep = grey.astype(np.uint16) * 257
    palette = io.BytesIO()
    Image.fromarray(grey).convert("P").save(palette, "PNG", transparency=3)
    alpha = np.stack([grey, grey, grey, np.full_like(grey, 9)], axis=-1)
    for file in (png(grey), png(deep), png(alpha), palette.getvalue()):
        got = decode(file, 8, channels)
        np.testing.assert_array_equal(got, np.repeat(grey[..., None], channels, axis=-1))


def test_pixels_without_a_known_range_are_refused():
    buffer = io.BytesIO()
    Image.fromarray(np.ones((8, 8), np.float32)).save(buffer, "TIFF")
    with pytest.raises(ValueError, match="no known range"):
        decode(buffer.getvalue(), 8, 1)


def test_a_file_that_would_start_a_program_is_not_opened():
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, "EPS")
    with pytest.raises(Image.UnidentifiedImageError):
        decode(buffer.getvalue(), 8, 3)


def test_a_new_data_set_is_one_record(tmp_path):
    @contextmanager
    def stripes(path):
        items = [Item(f"{i}", i % 2, lambda i=i: np.full((4, 4, 3), 100 * (i % 2) + i, np.uint8)) for i in range(40)]
        yield Source(["dark", "light"], {"train": items})

    DATA_SETS.add(DataSet("stripes", stripes, "a folder of stripes", "train"))
    try:
        config = settings(adapter="stripes", path=str(tmp_path), image_size=4, channels=3)
        manifest = prepare(config, tmp_path / "out", 0)
        assert manifest["adapter"] == "stripes" and manifest["classes"] == ["dark", "light"]
        refused(tmp_path / "no", config | {"path": None}, "Set `data.path` in the config to a folder of stripes.")
    finally:
        DATA_SETS.remove("stripes")


# Bad folders


@pytest.mark.parametrize("adapter", [name for name, known in DATA_SETS.items() if known.needs_path])
def test_a_missing_path_says_what_is_expected(tmp_path, adapter):
    nowhere = tmp_path / "nowhere"
    config = settings(adapter=adapter, path=str(nowhere))
    refused(tmp_path, config, str(nowhere), f"'{adapter}'", "`data.path`", DATA_SETS[adapter].layout)
    refused(tmp_path, config | {"path": None}, "data.path is not set", DATA_SETS[adapter].layout)


def test_digits_refuse_a_path_they_would_not_read(tmp_path):
    refused(tmp_path, settings(path="images"), "reads no path", "data.adapter")


def test_folders_without_images(tmp_path):
    root = tmp_path / "pets"
    root.mkdir()
    refused(tmp_path, folder_settings(root), "no image in a class folder", DATA_SETS["folder"].layout)
    write_image(root / "flat.png", 0)
    refused(tmp_path, folder_settings(root), "no image in a class folder, 1 other file")
    shutil.rmtree(root)
    image_folder(root)
    (root / "train/bird").mkdir()
    refused(tmp_path, folder_settings(root), "'bird' is in train, not in test")
    for split in ("validation", "test"):
        write_image(root / split / "bird/0.png", 0)
    (root / "train/bird/0.heic").write_bytes(b"\0\0\0\x18ftypheic")
    refused(tmp_path, folder_settings(root), "no image in the class folder(s) bird of train", "1 .heic, such as")


def test_odd_classes_and_splits_are_named(tmp_path):
    root = image_folder(tmp_path / "pets")
    write_image(root / "test/horse/0.png", 0)
    refused(tmp_path, folder_settings(root), "'horse' is in test, not in train")
    shutil.rmtree(root / "test/horse")
    shutil.copytree(root / "validation", root / "val")
    refused(tmp_path, folder_settings(root), "val, validation", "two for one split")
    shutil.rmtree(root / "val")
    shutil.rmtree(root / "train")
    refused(tmp_path, folder_settings(root), "no train folder")


def test_split_folders_without_classes_are_not_taken_for_classes(tmp_path):
    for split in ("train", "test"):
        for i in range(10):
            write_image(tmp_path / f"flat/{split}/{i}.png", seed=i)
    refused(tmp_path, folder_settings(tmp_path / "flat"), "no class folders in test, train")


def test_one_class_is_not_enough(tmp_path):
    for i in range(9):
        write_image(tmp_path / f"pets/train/cat/{i}.png", seed=i)
    refused(tmp_path, folder_settings(tmp_path / "pets"), "only the class ['cat']")


def test_too_few_images_to_split(tmp_path):
    root = image_folder(tmp_path / "pets", ("",), per_class=20)
    for i in range(2):
        write_image(root / f"eel/{i}.png", seed=i)
    refused(tmp_path, folder_settings(root), "'eel' has 2 training image(s)", "test and val")
    write_image(root / "eel/2.png", seed=2)
    config = folder_settings(root, splits={"val": 0.01, "test": 0.2})
    refused(tmp_path, config, "data.splits.val = 0.01 makes 0 of 43", "3 classes")


def test_images_without_contrast_are_refused(tmp_path):
    for i in range(40):
        path = tmp_path / f"black/{'ab'[i % 2]}/{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    refused(tmp_path, folder_settings(tmp_path / "black"), "same in every pixel")


def test_too_small_a_training_split_for_the_batch(tmp_path):
    root = image_folder(tmp_path / "pets")
    refused(tmp_path, folder_settings(root, calibration=13), "12 images", "needs 13", "data.calibration")


def test_an_earlier_result_survives_a_failure(tmp_path):
    root = image_folder(tmp_path / "pets")
    prepare(folder_settings(root), tmp_path / "out", 0)
    before = {name: (tmp_path / "out" / name).read_bytes() for name in OUTPUTS}
    (root / "train/cat/bad.png").write_text("no")
    with pytest.raises(LibranasError):
        prepare(folder_settings(root), tmp_path / "out", 0)
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before


def test_no_room_on_the_disk_is_said_before_writing(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    refused(tmp_path, settings(), "No space left on the disk", "1797 images")


# CIFAR-10


def cifar_batches(base: Path, per_batch=30) -> tuple[np.ndarray, np.ndarray]:
    """torchvision's layout with few images; returns all pixels (N, 32, 32, 3) and labels, test batch last."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6 * per_batch, 32, 32, 3), dtype=np.uint8)
    labels = np.tile(np.arange(10), len(pixels) // 10)
    base.mkdir(parents=True)
    for b, name in enumerate([f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]):
        part = slice(b * per_batch, (b + 1) * per_batch)
        planes = pixels[part].transpose(0, 3, 1, 2).reshape(per_batch, 3072)
        batch = {"data": planes, "labels": labels[part].tolist(), "batch_label": name, "filenames": ["x.png"]}
        (base / name).write_bytes(pickle.dumps(batch, protocol=2 + b % 4))
    meta = {"label_names": CIFAR10_CLASSES, "num_vis": 3072}
    (base / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    return pixels, labels


def cifar_settings(path, **changes) -> dict:
    return settings(adapter="cifar10", path=str(path), image_size=32, channels=3, calibration=20) | changes


def test_cifar10_as_torchvision_keeps_it(tmp_path):
    pixels, labels = cifar_batches(tmp_path / "data/cifar-10-batches-py")
    manifest = prepare(cifar_settings(tmp_path / "data"), tmp_path / "out", 0)
    assert manifest["classes"] == CIFAR10_CLASSES
    assert [manifest["splits"][s]["count"] for s in SPLITS] == [128, 22, 30]
    images, targets = load_split(tmp_path / "out/images.h5", "test")
    np.testing.assert_array_equal(images, pixels[150:].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(targets, labels[150:])
    with open_images(tmp_path / "out/images.h5") as file:
        indices = [int(n.decode().removeprefix("train/")) for s in ("train", "val") for n in file[s]["source"]]
    assert sorted(indices) == list(range(150))
    inner = prepare(cifar_settings(tmp_path / "data/cifar-10-batches-py"), tmp_path / "out2", 0)
    assert inner["content_sha256"] == manifest["content_sha256"]


def test_cifar10_pickles_of_python_2(tmp_path):
    """The published files have Python 2 text and the module names of old numpy."""
    cifar_batches(tmp_path / "cifar-10-batches-py")
    expected = prepare(cifar_settings(tmp_path), tmp_path / "a", 0)
    batch = tmp_path / "cifar-10-batches-py/data_batch_1"
    old = pickle.dumps(pickle.loads(batch.read_bytes()), protocol=2)
    assert b"cnumpy._core.multiarray\n" in old
    batch.write_bytes(old.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    assert prepare(cifar_settings(tmp_path), tmp_path / "b", 0) == expected


class Trap:
    """Unpickling this would make a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    base = tmp_path / "cifar-10-batches-py"
    cifar_batches(base)
    (base / "data_batch_3").write_bytes(pickle.dumps({"data": Trap(tmp_path / "sprung"), "labels": []}))
    refused(tmp_path, cifar_settings(tmp_path), "data_batch_3", "mkdir")
    assert not (tmp_path / "sprung").exists()


def test_bad_cifar10_batches_are_named(tmp_path):
    base = tmp_path / "cifar-10-batches-py"
    cifar_batches(base)
    whole = (base / "data_batch_2").read_bytes()
    (base / "data_batch_2").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path, cifar_settings(tmp_path), "data_batch_2 is not a file of cifar-10-python.tar.gz")
    (base / "data_batch_2").write_bytes(pickle.dumps({"data": np.zeros((3, 5), np.uint8), "labels": [1, 2, 3]}))
    refused(tmp_path, cifar_settings(tmp_path), "data_batch_2", "uint8 (3, 5), expected uint8 (3, 3072)")
    (base / "data_batch_2").write_bytes(pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [10]}))
    refused(tmp_path, cifar_settings(tmp_path), "not all labels are 0 to 9")
    (base / "data_batch_2").unlink()
    refused(tmp_path, cifar_settings(tmp_path), "lacks data_batch_2", DATA_SETS["cifar10"].layout)


def cifar_npz(path: Path, n=120) -> dict:
    rng = np.random.default_rng(0)
    files = []
    for _ in range(n):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(buffer, "JPEG")
        files.append(buffer.getvalue())
    arrays = {
        "blob": np.frombuffer(b"".join(files), np.uint8),
        "offset": np.cumsum([0, *map(len, files)]),
        "label": (np.arange(n) % 10).astype(np.uint8),
        "is_test": (np.arange(n) >= n - 20).astype(np.uint8),
        "classes": np.array(CIFAR10_CLASSES),
    }
    np.savez(path, **arrays)
    return arrays


def test_cifar10_as_npz(tmp_path):
    arrays = cifar_npz(tmp_path / "c.npz")
    manifest = prepare(cifar_settings(tmp_path / "c.npz"), tmp_path / "out", 0)
    assert [manifest["splits"][s]["count"] for s in SPLITS] == [85, 15, 20]
    images, _ = load_split(tmp_path / "out/images.h5", "test")
    first = arrays["blob"][arrays["offset"][100] : arrays["offset"][101]].tobytes()
    np.testing.assert_array_equal(images[0], np.asarray(Image.open(io.BytesIO(first))).transpose(2, 0, 1))


def test_bad_npz_files_are_named(tmp_path):
    path = tmp_path / "c.npz"
    arrays = cifar_npz(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(tmp_path, cifar_settings(path), "c.npz is not an .npz file", DATA_SETS["cifar10"].layout)
    path.write_bytes(b"no archive")
    assert "pickle" not in refused(tmp_path, cifar_settings(path), "c.npz is not an .npz file", "it is no zip archive")
    np.savez(path, **{key: value for key, value in arrays.items() if key != "is_test"})
    refused(tmp_path, cifar_settings(path), "c.npz", "is_test")
    np.savez(path, **arrays)
    refused(tmp_path, cifar_settings(path, adapter="cifar100"), "has 10 classes (airplane, ", "cifar100 has 100")
    for wrong in ({"offset": arrays["offset"][:-1]}, {"blob": arrays["blob"][:-9]}, {"label": arrays["label"][1:]}):
        np.savez(path, **(arrays | wrong))
        refused(tmp_path, cifar_settings(path), "do not fit together")


def test_real_cifar10(tmp_path, shared_dir):
    path, limit = shared_dir / "data/cifar10_jpeg.npz", {"train": 400, "val": 100, "test": 100}
    manifest = prepare(cifar_settings(path, limit=limit), tmp_path, 0)
    assert [manifest["splits"][s]["count"] for s in SPLITS] == [400, 100, 100]
    for entry in manifest["splits"].values():
        assert len(set(entry["per_class"].values())) == 1  # CIFAR-10 has equally many of each class
    assert "0.15 of 50000" in manifest["split_rule"]["val"]
    np.testing.assert_allclose(manifest["mean"], [0.4913, 0.4821, 0.4465], atol=0.02)


def test_real_photographs_in_a_tar(tmp_path, shared_dir):
    path, limit = shared_dir / "data/clothing_small_224.tar", {"train": 40, "val": 20, "test": 20}
    manifest = prepare(folder_settings(path, image_size=32, limit=limit), tmp_path, 0)
    assert len(manifest["classes"]) == 10 and "t-shirt" in manifest["classes"]
    assert [manifest["splits"][s]["count"] for s in SPLITS] == [40, 20, 20]
    assert manifest["broken"]["count"] == manifest["ignored"]["count"] == 0


# Reading back


@pytest.fixture
def small(tmp_path):
    prepare(settings(limit={"train": 60, "val": 20, "test": 20}), tmp_path, 0)
    return tmp_path


def test_a_damaged_images_file_is_named_and_never_half_read(small):
    path = small / "images.h5"
    whole = path.read_bytes()
    expected = {split: load_split(path, split) for split in SPLITS}
    rng, refusals = np.random.default_rng(0), 0
    damaged = [whole[: len(whole) * k // 8] for k in range(8)] + [b"\0" * 999, b"not HDF5"]
    for place in rng.integers(0, len(whole), 150):
        damaged.append(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
    for content in damaged:
        path.write_bytes(content)
        try:
            for split in SPLITS:
                for got, want in zip(load_split(path, split), expected[split], strict=True):
                    np.testing.assert_array_equal(got, want)
        except LibranasError as error:
            assert str(path) in str(error)
            refusals += 1
    assert refusals > 100


def test_foreign_and_missing_files_are_named(tmp_path, small):
    foreign = tmp_path / "foreign.h5"
    with h5py.File(foreign, "w") as file:
        file["x"] = 1
    for path, words in ((foreign, "no images file"), (tmp_path / "none.h5", "does not exist")):
        with pytest.raises(LibranasError, match=words) as caught:
            load_split(path, "train")
        assert str(path) in str(caught.value)
    with h5py.File(small / "images.h5", "r+") as file:
        file.attrs["version"] = 2
    with pytest.raises(LibranasError, match="version 2"):
        load_split(small / "images.h5", "train")


def test_a_damaged_calibration_file_is_named(small):
    path = small / "calibration.npz"
    whole = path.read_bytes()
    for content in (b"", b"no zip", whole[:200], whole[: len(whole) - 5]):
        path.write_bytes(content)
        with pytest.raises(LibranasError, match=r"calibration\.npz is not an \.npz file"):
            load_calibration(path)
    np.savez(path, inputs=np.zeros(3))
    with pytest.raises(LibranasError, match="inputs, targets"):
        load_calibration(path)


def test_reading_needs_neither_torch_nor_scikit_learn():
    code = "import sys, libranas.data.prepare; print({'torch', 'sklearn'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.strip() == "set()"
