"""Odd and damaged inputs, made at random: each is read as it is or refused in words. Nothing is lost in silence.

More of them, other ones with every seed; a hanging one ends with its traceback:

    LIBRANAS_FUZZ=10000 python -m pytest tests/unit/test_fuzz_data.py --hypothesis-seed=1 -o faulthandler_timeout=600
"""

import contextlib
import csv
import io
import math
import os
import tarfile
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from libranas import scores as store
from libranas.core.errors import LibranasError
from libranas.data.adapters.listing import SPLIT_FOLDERS
from libranas.data.decode import decoded
from libranas.data.prepare import prepare
from libranas.data.reading import load_calibration, load_split
from libranas.data.registry import DATA_SETS
from libranas.data.source import SPLITS
from libranas.labels.table import read_accuracy_table
from libranas.published.pool import read_pool
from libranas.published.tables import read_table
from libranas.runs.inputs import state_of
from libranas.spaces import make_space

ASKED = int(os.environ.get("LIBRANAS_FUZZ", 0))
pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow's, about damage


def fuzz(examples: int):
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    return settings(max_examples=ASKED or examples, derandomize=not ASKED, deadline=None, suppress_health_check=slow)


def encoded(kind: str, **options) -> bytes:
    pixels = np.random.default_rng(len(kind)).integers(0, 256, (9, 11, 3), np.uint8)
    Image.fromarray(pixels).save(buffer := io.BytesIO(), kind, **options)
    return buffer.getvalue()


IMAGES = [encoded(kind) for kind in ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")]
OTHERS = [b"", b"P1 is a note", b"BMW", b"\xff\xd8", b"Dear reader,\n", b"\0" * 600, b"\x89PNG\r\n\x1a\n", b"0", b"1\n"]


@st.composite
def damaged(draw, content: bytes, most: int = 4) -> bytes:
    """The same bytes, some of them changed, or cut off."""
    content = bytearray(content)
    places = st.integers(0, max(0, len(content) - 1))
    for place in draw(st.lists(places, max_size=most)) if content else ():
        content[place] = draw(st.integers(0, 255))
    return bytes(content[: draw(places)] if content and not draw(st.integers(0, 3)) else content)


CONTENTS = st.one_of(st.sampled_from(IMAGES), st.sampled_from(IMAGES).flatmap(damaged), st.sampled_from(OTHERS))
STEMS = st.one_of(
    st.sampled_from(
        ["0", "1", "a.b", "", ".", "..", "...", " ", "\u00e4", "a\u0301", "\U0001f600", "-rf", "$(x)", "a\nb"]
    ),
    st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), max_size=3),
)
SUFFIXES = st.sampled_from(["", ".jpg", ".JPG", ".png", ".jfif", ".txt", ".cls", ".seg.png", ".json", ".", "..jpg"])
CLASSES = st.sampled_from(["cat", "dog", "cat", "dog", "cat", "dog", "Cat", ".cat", "__MACOSX", "cat.d", "train"])
TOPS = st.sampled_from([(), ("train",), ("Train",), ("val",), ("valid",), ("outer",), ("outer", "train"), ("..",)])


@st.composite
def trees(draw) -> dict[tuple, bytes]:
    """Files by folders and name: images of two classes in one place or some, and anything among them."""
    tops = draw(st.lists(TOPS, min_size=1, max_size=2, unique=True))
    names = st.builds(
        lambda top, name, stem, suffix: (*top, name, stem + suffix),
        *(st.sampled_from(tops), CLASSES, STEMS, SUFFIXES),
    )
    sound = {(*top, name, f"sound {i}.png"): IMAGES[1] for top in tops for name in ("cat", "dog") for i in range(3)}
    return (sound if draw(st.integers(0, 4)) else {}) | draw(st.dictionaries(names, CONTENTS, max_size=10))


FILES = trees()


def write_folder(root: Path, files: dict) -> dict[str, bytes]:
    """Write what a folder can hold; return it by name."""
    written = {}
    for parts, content in files.items():
        if ".." in parts or parts[-1] in ("", "."):
            continue
        with contextlib.suppress(OSError):  # a file where a folder is, or the other way round
            (root / Path(*parts)).parent.mkdir(parents=True, exist_ok=True)
            (root / Path(*parts)).write_bytes(content)
            written["/".join(parts)] = content
    return written


def tar_of(files: dict, mode: str = "w", kinds=()) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=tarfile.PAX_FORMAT) as tar:
        for number, (parts, content) in enumerate(files.items()):
            member = tarfile.TarInfo("/".join(parts))
            member.size = len(content)
            member.type = kinds[number % len(kinds)] if kinds else tarfile.REGTYPE
            member.linkname = "/etc/passwd"
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def plain(parts: tuple) -> str:
    return "/".join(p for part in parts for p in part.split("/") if p not in ("", "."))


def accounted(source) -> Counter:
    """How often each file is an image, or passed over."""
    return Counter([item.source for items in source.splits.values() for item in items] + source.ignored)


def check_source(source, files: dict[str, bytes]) -> None:
    """Each file is there once; each image has the bytes and the class of its name, and is decoded or has a reason."""
    assert accounted(source) == Counter(dict.fromkeys(files, 1))
    for split, items in source.splits.items():
        for item in items:
            parts = item.source.split("/")
            assert item.load() == files[item.source] and source.classes[item.label] in parts[:-1]
            assert not any(p.startswith(".") or p == "__MACOSX" for p in parts)
            named = [SPLIT_FOLDERS[p.lower()] for p in parts if p.lower() in SPLIT_FOLDERS]
            assert split in named or split == "train"
        for _, image in decoded(items, 6, 3, 1):
            assert (isinstance(image, str) and image) or (image.shape == (6, 6, 3) and image.dtype == np.uint8)


@contextlib.contextmanager
def folder():
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


@fuzz(60)
@given(FILES)
def test_image_folders(files):
    with folder() as where:
        written = write_folder(where / "images", files)
        before = sorted(where.rglob("*"))
        with contextlib.suppress(LibranasError), DATA_SETS["folder"].open(where / "images") as source:
            check_source(source, written)
        assert state_of(where / "images") == state_of(where / "images")
        assert sorted(where.rglob("*")) == before


KINDS = st.lists(
    st.sampled_from([tarfile.REGTYPE] * 30 + [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]),
    min_size=1,
    max_size=7,
)


@fuzz(60)
@given(FILES, st.sampled_from(["w", "w:gz", "w:bz2", "w:xz"]), KINDS)
def test_tars_of_image_folders(files, mode, kinds):
    files = {parts: content for parts, content in files.items() if plain(parts)}
    with folder() as where:
        (where / "images").write_bytes(tar_of(files, mode, kinds))
        with contextlib.suppress(LibranasError), DATA_SETS["folder"].open(where / "images") as source:
            names = {plain(parts) for parts in files}
            assert accounted(source).keys() == names
            for items in source.splits.values():
                for _, image in decoded(items, 6, 3, 1):
                    assert isinstance(image, (str, np.ndarray))
        assert [path.name for path in where.rglob("*")] == ["images"]


@fuzz(60)
@given(FILES, st.data())
def test_damaged_tars(files, data):
    files = {(k, *parts): c for k, (parts, c) in enumerate(files.items())}
    files = {(f"{k}", "cat" if k % 2 else "dog", f"{k}.jpg"): c for (k, *_), c in files.items()}
    content = tar_of(files)
    with folder() as where:
        (where / "images.tar").write_bytes(data.draw(damaged(content)))
        with contextlib.suppress(LibranasError), DATA_SETS["folder"].open(where / "images.tar") as source:
            assert accounted(source).keys() == {plain(parts) for parts in files}


@fuzz(60)
@given(st.dictionaries(st.tuples(st.sampled_from(["a", "b.c/a", ".h"]), STEMS, SUFFIXES), CONTENTS, max_size=16))
def test_shards(members):
    files = {("train", plain((place, stem + suffix))): c for (place, stem, suffix), c in members.items()}
    files |= {("train", f"{key}.{e}"): c for key in "xy" for e, c in (("jpg", IMAGES[0]), ("cls", b"01"[key == "y" :]))}
    files = {parts: c for parts, c in files.items() if ".." not in parts[1].split("/")}
    with folder() as where:
        (where / "x-train-0.tar").write_bytes(tar_of({(plain(parts[1:]),): c for parts, c in files.items()}))
        with contextlib.suppress(LibranasError), DATA_SETS["webdataset"].open(where) as source:
            items = source.splits["train"]
            names = {f"x-train-0.tar/{plain(parts[1:])}": c for parts, c in files.items()}
            keys = [key_of(item.source) for item in items]
            assert len(keys) == len(set(keys)) and "x-train-0.tar/x" in keys
            counts = accounted(source)
            assert max(counts.values()) == 1 and counts.keys() <= names.keys()
            labels = names.keys() - counts.keys()  # what is neither read nor passed over is the label of one that is
            assert sorted(map(key_of, labels)) == sorted(keys) and all(n.lower().endswith(".cls") for n in labels)
            for item in items:
                assert item.load() == names[item.source]


def key_of(name: str) -> str:
    place, _, base = name.rpartition("/")
    return f"{place}/{base.partition('.')[0]}"


@fuzz(15)
@given(FILES, st.integers(0, 3))
def test_prepared_folders(files, max_broken):
    fill = {("train", name, f"_{i}.png"): IMAGES[1] for name in ("cat", "dog") for i in range(4)}
    with folder() as where:
        write_folder(where / "images", fill | files)
        config = {"adapter": "folder", "path": str(where / "images"), "image_size": 4, "channels": 3, "limit": None}
        config |= {"splits": {"val": 0.25, "test": 0.25}, "max_broken": max_broken, "calibration": 4}
        try:
            manifest = prepare(config, where / "out", 0, 1)
        except LibranasError:
            assert not list((where / "out").glob("*"))
            return
        with DATA_SETS["folder"].open(where / "images") as source:
            found = sum(map(len, source.splits.values()))
        counts = [entry["count"] for entry in manifest["splits"].values()]
        assert sum(counts) + manifest["broken"]["count"] == found and manifest["broken"]["count"] <= max_broken
        for split, count in zip(manifest["splits"], counts, strict=True):
            images_NCSS, label_N = load_split(where / "out/images.h5", split)
            assert len(images_NCSS) == len(label_N) == count


# Tables


SPACE = make_space({"family": "nasbench201"}, 32, 3, 10)
CELLS = st.one_of(
    st.sampled_from(["", "nan", "inf", "-inf", "1e999", "1,5", "0x1", "\u0663", "1_000", "50%", "-", "True", "1e-400"]),
    st.text(st.characters(blacklist_categories=["Cs"]), max_size=4),
)
ARCHS = [SPACE.format(SPACE.sample(np.random.default_rng(k))) for k in range(9)]
GOOD = st.floats(0, 1).map(repr)


@st.composite
def tables(draw, names=("arch", "accuracy", "params", "zico")) -> tuple[bytes, list]:
    """A CSV file, perhaps damaged (its rows are then none), and its rows."""
    rows = [
        [arch, draw(GOOD), draw(GOOD), draw(GOOD)] for arch in draw(st.permutations(ARCHS))[: draw(st.integers(0, 9))]
    ]
    for row in draw(st.lists(st.sampled_from(rows), max_size=2)) if rows and draw(st.booleans()) else ():
        row[draw(st.integers(1, 3))] = draw(CELLS)
    if rows and not draw(st.integers(0, 4)):
        rows[0][0] = draw(st.sampled_from([rows[-1][0], "", "x", "nan", "1"]))
    out = io.StringIO()
    csv.writer(out, lineterminator=draw(st.sampled_from(["\n", "\r\n"]))).writerows([names, *rows])
    content = out.getvalue().encode()
    if not draw(st.integers(0, 2)):
        return draw(damaged(content, 2)), None
    return content, rows


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def read_or_refused(read, content: bytes, name: str = "table.csv"):
    """What `read` makes of a file of this name and content; None if that is an error for the reader."""
    with folder() as where:
        (where / name).write_bytes(content)
        try:
            return read(where / name)
        except LibranasError:
            return None


@fuzz(60)
@given(tables())
def test_tables_of_accuracies(table):
    content, rows = table
    found = read_or_refused(lambda path: read_accuracy_table(path, SPACE, "arch"), content)
    if found is None:
        return
    assert np.isfinite(found["accuracy"]).all() and found["id"].is_unique
    if rows is not None:
        assert [SPACE.parse(text).id for text, *_ in rows] == list(found["id"])
        assert [number(text) for _, text, *_ in rows] == list(found["accuracy"])


@fuzz(60)
@given(tables())
def test_tables_to_search_in(table):
    content, rows = table
    pool = read_or_refused(read_pool, content)
    if pool is None:
        return
    assert np.isfinite(pool.accuracy_N).all() and len(pool) == len(pool.sample.score_AP)
    if rows is not None:
        numbers = {text: number(accuracy.strip().removesuffix("%")) for text, accuracy, *_ in rows}
        assert sorted(pool.accuracy_N) == sorted(numbers.values()) and len(pool) == len(rows)


@fuzz(60)
@given(tables())
def test_published_tables(table):
    content, rows = table
    found = read_or_refused(lambda path: read_table(path, accuracy="accuracy"), content, "nasbench201-x.csv")
    if found is None:
        return
    assert found.accuracy_A.index.is_unique and np.isfinite(found.accuracy_A).all()
    if rows is not None:
        assert list(found.accuracy_A) == [number(text) for _, text, *_ in rows]


# Files of the product


SCORES = (Path(__file__).parents[1] / "data/scores-v1.h5").read_bytes()


@fuzz(60)
@given(damaged(SCORES))
def test_damaged_score_files(content):
    with folder() as where:
        (where / "scores.h5").write_bytes(content)
        try:
            found = store.read(where / "scores.h5")
        except LibranasError:
            return
        (where / "whole.h5").write_bytes(SCORES)
        assert store.content_sha256(found) == store.content_sha256(store.read(where / "whole.h5"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    config = {"adapter": "digits", "path": None, "image_size": 4, "channels": 1, "limit": dict.fromkeys(SPLITS, 12)}
    config |= {"splits": {"val": 0.25, "test": 0.25}, "max_broken": 0, "calibration": 4}
    prepare(config, out := tmp_path_factory.mktemp("prepared"), 0)
    return out


@fuzz(60)
@given(st.data())
def test_damaged_images_files(prepared, data):
    with folder() as where:
        (where / "images.h5").write_bytes(data.draw(damaged((prepared / "images.h5").read_bytes())))
        (where / "calibration.npz").write_bytes(data.draw(damaged((prepared / "calibration.npz").read_bytes())))
        with contextlib.suppress(LibranasError):
            for ours, whole in zip(*(load_split(at / "images.h5", "train") for at in (where, prepared)), strict=True):
                np.testing.assert_array_equal(ours, whole)
        with contextlib.suppress(LibranasError):
            for ours, whole in zip(
                *(load_calibration(at / "calibration.npz") for at in (where, prepared)), strict=True
            ):
                np.testing.assert_array_equal(ours, whole)
