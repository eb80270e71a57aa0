"""Prepare a data set once: pinned splits, one file of small images, a manifest, the calibration batch.

:func:`prepare` turns a data set into three files; every later stage reads only these.

``images.h5``
    Groups ``train``, ``val``, ``test``, each with ``images`` (uint8, N x S x S x C), ``labels`` (int64, N)
    and ``source`` (text, N: path inside the data set, or ``"digits/17"``, ``"train/123"``).
``manifest.json``
    Classes, counts, normalisation, broken images, how the splits were made, hashes of the content.
``calibration.npz``
    The class-balanced batch that zero-cost proxies look at: ``inputs`` (float32, B x C x S x S, normalised)
    and ``targets`` (int64, B).

Splits are cut and limits applied before any image is decoded, so mending a broken image never moves another.

Legend: N images, B calibration batch, C channels, S image side.
"""

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from libranas.core.errors import LibranasError
from libranas.core.files import atomic_path, user_path, write_json
from libranas.core.progress import silent
from libranas.data.calibration import calibration_batch
from libranas.data.decode import DECODE_BATCH, decoded
from libranas.data.reading import FORMAT, MANIFEST_FORMAT, VERSION
from libranas.data.registry import DATA_SETS
from libranas.data.source import SPLITS, Item
from libranas.data.splits import pinned_splits

#: Size of the pieces that HDF5 reads, checks and writes; below its cache of 1 MiB.
CHUNK_BYTES = 2**19


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
        # Integers: mean and deviation are the same on every machine, to the last bit.
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
        """Write labels and sources; return the split's entry of the manifest."""
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
        """Return mean and (population) standard deviation of each channel, pixels in [0, 1]."""
        level = np.arange(256)
        moments = [(int(h.sum()), int(h @ level), int(h @ level**2)) for h in self.histogram_C]
        mean_C = [first / count / 255 for count, first, _ in moments]
        std_C = [math.sqrt(count * second - first**2) / count / 255 for count, first, second in moments]
        return np.array(mean_C), np.array(std_C)


def prepare(
    settings: dict,
    out_dir: str | os.PathLike,
    seed: int,
    workers: int = 2,
    progress: Callable = silent,
    files: str | None = None,
) -> dict:
    """Write ``images.h5``, ``manifest.json`` and ``calibration.npz`` (see the module) into `out_dir`.

    Parameters
    ----------
    settings : the checked section ``data`` of the configuration
    seed : master seed of the streams ``split``, ``limit`` and ``calibration``
    workers : threads that decode; the result does not depend on it
    progress : (iterable, total, label) -> iterable; wraps the loop over the images of each split
    files : what tells these images from changed ones; kept in the manifest

    Returns
    -------
    The manifest. ``content_sha256`` covers pixels, labels, classes, normalisation and calibration batch, not where the
    images came from: a folder and a tar of it agree. After a LibranasError (the data set is missing, malformed, or has
    more than ``max_broken`` broken images) no file is left.
    """
    path = user_path(settings["path"]) if settings["path"] else None
    out_dir = Path(out_dir)
    with DATA_SETS[settings["adapter"]].open(path) as source:
        if len(source.classes) < 2:
            raise LibranasError(
                f"{path} has only the class {source.classes}; classification needs two or more.",
                "Point `data.path` at the folder above the class folders.",
            )
        splits, rules = pinned_splits(source, settings, seed)
        # The manifest is renamed into place last: where it is, the other two are.
        with (
            atomic_path(out_dir / "manifest.json") as manifest_path,
            atomic_path(out_dir / "calibration.npz") as calibration_path,
            atomic_path(out_dir / "images.h5") as images_path,
        ):
            _check_room(out_dir, sum(map(len, splits.values())), settings)
            with _new_h5(images_path) as file:
                entries, train, broken = _write_splits(file, splits, source.classes, settings, workers, progress)
                if broken:
                    first = f"such as {broken[0]['source']}: {broken[0]['reason']}"
                    source.warnings.append(f"{len(broken)} broken image(s) left out, {first}.")
                mean_C, std_C = train.mean_std()
                inputs_BCSS, targets_B = calibration_batch(train.group, mean_C, std_C, settings["calibration"], seed)
            np.savez(calibration_path, inputs=inputs_BCSS, targets=targets_B)
            packed = inputs_BCSS.astype("<f4").tobytes() + targets_B.astype("<i8").tobytes()
            content = {
                "version": VERSION,
                "classes": source.classes,
                "image_size": settings["image_size"],
                "channels": settings["channels"],
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
                "files": files,
                "seed": seed,
                "split_rule": rules,
                "broken": {"count": len(broken), "images": broken},
                "warnings": source.warnings,
                "ignored": {"count": len(source.ignored), "first": source.ignored[:20]},
            }
            write_json(manifest_path, manifest)
    return manifest


def _write_splits(
    file: h5py.File, splits: dict, classes: list[str], settings: dict, workers: int, progress: Callable
) -> tuple[dict, _SplitWriter, list[dict]]:
    """Write the images; return the manifest's entry of each split, the writer of the training images, and the broken
    ones."""
    size, channels = settings["image_size"], settings["channels"]
    broken, entries, writers = [], {}, {}
    for split, items in splits.items():
        writer = writers[split] = _SplitWriter(file, split, size, channels)
        images = decoded(items, size, channels, workers)
        for item, image in progress(images, len(items), f"{split} images"):
            if isinstance(image, str):
                broken.append({"split": split, "source": item.source, "reason": image})
            else:
                writer.add(item, image)
        entries[split] = writer.close(classes)
    _check_decoded(settings, entries, broken)
    return entries, writers["train"], broken


@contextmanager
def _new_h5(path: Path) -> Iterator[h5py.File]:
    """Open a new images.h5, in the file format (HDF5 1.10) that also has checksums over its own structure."""
    try:
        with h5py.File(path, "w", libver=("v110", "v110")) as file:
            file.attrs["format"], file.attrs["version"] = np.bytes_(FORMAT), VERSION
            yield file
    except RuntimeError as error:  # h5py's way to report a full disk when it closes the file
        if "No space left" in str(error):
            raise OSError(errno.ENOSPC, str(error)) from error
        raise


def _check_room(out_dir: Path, images: int, settings: dict) -> None:
    """Raise if the disk has no room: the HDF5 library, once a write failed, can crash on the way out."""
    pixels = settings["image_size"] ** 2 * settings["channels"]
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
