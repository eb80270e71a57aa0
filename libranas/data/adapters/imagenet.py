"""ImageNet-1k: folders, tars, WebDataset shards or Hugging Face's files."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from libranas.core.errors import LibranasError
from libranas.data.adapters.hugging_face import read_split, reader_items
from libranas.data.adapters.listing import expanded, named_split, visible
from libranas.data.adapters.webdataset import label_number, label_text, one_image_each
from libranas.data.formats import is_image
from libranas.data.source import DataSet, Item, Source

IMAGENET_COUNTS = {"train": 1_281_167, "test": 50_000}


@contextmanager
def imagenet(path: Path) -> Iterator[Source]:
    """Read ImageNet-1k (ILSVRC 2012). Its validation images are the split `test`: those that all publish accuracies of.

    Classes are WordNet ids in sorted order, the order that everyone's pretrained networks have. Images are found by
    their class folder or, in WebDataset shards, by the number in KEY.cls; Hugging Face's files are read by timm.
    """
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
    """Find images below split and class folders, also in tars and tars of tars; or next to their KEY.cls."""
    label_of = {synset: label for label, synset in enumerate(synsets)}
    source, items, files = Source(synsets, {"train": [], "test": []}), {}, {}
    for parts, read in visible(expanded(path, stack), source.ignored):
        folders = [p.removesuffix(".tar") for p in parts[:-1]]
        synset = next((p for p in reversed(folders) if re.fullmatch(r"n\d{8}", p)), None)
        if not read:
            continue
        if not _split(parts) or (synset and not is_image(parts[-1], read)):
            source.ignored.append("/".join(parts))
        elif not synset:
            files[parts] = read
        elif synset in label_of:
            items[parts] = label_of[synset], read
        else:
            raise LibranasError(
                f"{path}: {'/'.join(parts)} is of the class {synset}, which is not one of ImageNet-1k's 1000.",
                "Remove it. Other classes of ImageNet are read by `data.adapter: folder`.",
            )
    samples, unused = one_image_each(files)
    flat = ["/".join(sample.parts) for sample in samples if not sample.label]
    if flat:
        raise LibranasError(
            f"{path}: {len(flat)} image(s) are in no class folder, such as {flat[0]}: their classes are unknown.",
            "Sort them into class folders, val/n01440764/ILSVRC2012_val_00000293.JPEG, as the development kit's "
            "ILSVRC2012_validation_ground_truth.txt says; torchvision.datasets.ImageNet(root, 'val') does it.",
        )
    for parts, read, label in samples:
        items[parts] = label_number(label_text(label, "/".join(parts)), "/".join(parts)), read
    for parts, (label, read) in sorted(items.items(), key=lambda item: item[0]):
        _check_order("/".join(parts), label, synsets)
        source.splits[_split(parts)].append(Item("/".join(parts), label, read))
    source.ignored += unused
    if empty := [{"train": "train", "test": "val"}[split] for split, items in source.splits.items() if not items]:
        raise IMAGENET.missing(f"{path}: no image of {' and '.join(empty)}")
    return source


def _split(parts: tuple[str, ...]) -> str | None:
    """Return the split of a file. Its validation images are our test; its test images have no labels."""
    return {"train": "train", "val": "test"}.get(named_split(parts))


def _check_order(image: str, label: int, synsets: list[str]) -> None:
    """Raise if a label is no class, or another one than that in the image's name (n01440764_10026.JPEG)."""
    named = re.findall(r"n\d{8}", image.rsplit("/", 1)[-1])
    if not 0 <= label < len(synsets) or (named and named[-1] != synsets[label]):
        raise LibranasError(
            f"{image} has the label {label}: not the place of its class in the sorted WordNet ids, 0 to 999.",
            "Use a copy with the labels of ILSVRC's classification task in this order, as of timm/imagenet-1k-wds.",
        )


def _hugging_face(path: Path, synsets: list[str]) -> Source:
    source = Source(synsets, {})
    for split, name in (("train", "train"), ("test", "validation")):
        reader, label_N = read_split(path, name, IMAGENET)
        for label, first in zip(*np.unique(label_N, return_index=True), strict=True):
            _check_order(reader.filename(int(first), basename=True) or "", int(label), synsets)
        source.splits[split] = reader_items(reader, name, label_N)
    return source


IMAGENET = DataSet(
    "imagenet",
    imagenet,
    "a folder or .tar with `train/nXXXXXXXX/*.JPEG` and `val/nXXXXXXXX/*.JPEG`; the folder with train and val tars of "
    "such folders, WebDataset shards (`*train*.tar`, `*val*.tar` with `KEY.jpg` and `KEY.cls`) or "
    "`ILSVRC2012_img_train.tar`; or the folder with Hugging Face's parquet files",
    "train, the 50,000 validation images as test",
)
