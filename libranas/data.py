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

An adapter (:mod:`libranas.sources`) says where the images are and decodes none. Splits that the data set lacks are
cut from its training images, limits are applied, and only then are the chosen images decoded, a batch at a
time. Broken images are thus dropped *after* the splits were cut: mending one never moves another.

Shape suffixes: N images, B calibration batch, C channels, S image side.
"""

import errno
import functools
import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from libranas.errors import LibranasError
from libranas.files import atomic_path, write_json
from libranas.progress import silent
from libranas.provenance import stream_seed
from libranas.sources import ADAPTERS, SPLITS, Item, Source, read_npz

FORMAT, MANIFEST_FORMAT, VERSION = "libranas-images", "libranas-manifest", 1
#: What Pillow may open. Never all it knows: its EPS reader, for one, starts a program on the file.
IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
#: Images decoded before they are written; bounds the memory (256 images of 224 x 224 x 3: 39 MB).
DECODE_BATCH = 256
#: Size of the pieces that HDF5 reads, checks and writes; below its cache of 1 MiB.
CHUNK_BYTES = 2**19


# Choosing images --------------------------------------------------------------------------------------


def _stratified(items: Sequence[Item], count: int, seed: int) -> tuple[list[Item], list[Item]]:
    """`count` of the items with the class proportions of all of them, and the rest; order is kept."""
    from sklearn.utils import resample  # not at the top: readers of the prepared files need no scikit-learn

    # train_test_split would refuse a rest that is smaller than the number of classes
    labels, every = [item.label for item in items], np.arange(len(items))
    chosen = resample(every, n_samples=count, replace=False, stratify=labels, random_state=seed % 2**32)
    chosen = set(chosen.tolist())
    return [items[i] for i in every if i in chosen], [items[i] for i in every if i not in chosen]


def pinned_splits(source: Source, settings: dict, seed: int) -> tuple[dict, dict]:
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


def open_image(data: bytes | np.ndarray, channels: int) -> Image.Image:
    """An image file's bytes (or its pixels, uint8) as a grey or RGB image of 8 bits a channel.

    The whole file is decoded and turned as its EXIF orientation says. Of an animation the first frame is taken;
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
    return image.convert("RGB" if channels == 3 else "L")


def decode(data: bytes | np.ndarray, size: int, channels: int) -> np.ndarray:
    """An image as :func:`open_image` reads it, as uint8 (S, S, C): scaled (bicubic, antialiased) so that the shorter
    side is `size`, and cut to the centre square."""
    image = open_image(data, channels)
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


def prepare(
    settings: dict, out_dir: str | os.PathLike, seed: int, workers: int = 2, progress: Callable = silent
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
        splits, rules = pinned_splits(source, settings, seed)
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
                "warnings": source.warnings,
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


def load_calibration(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Inputs float32 (B, C, S, S), normalised, and targets int64 (B,) of ``calibration.npz``.

    Raises
    ------
    LibranasError
        Naming the file, if it is missing, cut off or foreign.
    """
    inputs_BCSS, targets_B = read_npz(path, ("inputs", "targets"), _AGAIN)
    return inputs_BCSS, targets_B
