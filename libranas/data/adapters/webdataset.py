"""WebDataset shards."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from libranas.core.errors import LibranasError
from libranas.data.adapters.listing import expanded, named_split, visible
from libranas.data.formats import IMAGE_SUFFIXES, is_image
from libranas.data.source import DataSet, Item, Source

#: Bytes of a .cls file, and classes that have numbers instead of names, which are believed.
LONGEST_LABEL, MOST_CLASSES = 1000, 1_000_000


def label_text(read: Callable, image: str) -> str:
    """Read the .cls file of an image."""
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


def label_number(label: str, image: str) -> int:
    try:
        return int(label)
    except ValueError:
        raise LibranasError(
            f"{image}: its .cls file has {label[:20]!r}, not a number.", "Make the shards again."
        ) from None


class Sample(NamedTuple):
    """The image of a sample, its name as folders and file name, and the reader of its .cls file if there is one."""

    parts: tuple[str, ...]
    read: Callable
    label: Callable | None


class _Member(NamedTuple):
    extension: str
    parts: tuple[str, ...]
    read: Callable

    @property
    def place(self) -> int:
        """The place of its suffix among those of images; behind them all for another suffix."""
        suffix = "." + self.extension.rpartition(".")[2]
        return IMAGE_SUFFIXES.index(suffix) if suffix in IMAGE_SUFFIXES else len(IMAGE_SUFFIXES)


def one_image_each(files: Mapping[tuple, Callable]) -> tuple[list[Sample], list[str]]:
    """Choose one image of each sample; return the samples that have one, and the names of all files of no use.

    A key ends at the first dot of the file name; dots of folders belong to it. The rest is the extension. Of several
    images the first in the order of :data:`IMAGE_SUFFIXES` counts. KEY.seg.png, with an extension of several words,
    counts only where no sample has an image KEY.png.
    """
    samples, chosen, unused = defaultdict(list), [], []
    for parts, read in sorted(files.items(), key=lambda file: file[0]):
        key, _, extension = parts[-1].partition(".")
        samples[*parts[:-1], key].append(_Member(extension.lower(), parts, read))
    images = [_images(sample) for sample in samples.values()]
    plain = any("." not in found[0].extension for found in images if found)
    for sample, found in zip(samples.values(), images, strict=True):
        image = found[0] if found and not (plain and "." in found[0].extension) else None
        label = next((member for member in sample if image and member.extension == "cls"), None)
        if image:
            chosen.append(Sample(image.parts, image.read, label and label.read))
        unused += ["/".join(member.parts) for member in sample if member not in (image, label)]
    return chosen, unused


def _images(sample: list[_Member]) -> list[_Member]:
    """Return the images of a sample, the best first. Only where no suffix tells are the files looked into."""
    found = [member for member in sample if member.place < len(IMAGE_SUFFIXES)]
    found = found or [m for m in sample if m.extension != "cls" and is_image(m.parts[-1], m.read)]
    return sorted(found, key=lambda member: (member.extension.count("."), member.place, member.parts))


@contextmanager
def webdataset(path: Path) -> Iterator[Source]:
    """Read WebDataset shards where they lie, in any order. Classes are numbers, which classes.txt may name; or
    names, in their sorted order."""
    with ExitStack() as stack:
        source, files = Source([], {}), {}
        for parts, read in visible(expanded(path, stack), source.ignored):
            if read and named_split(parts):
                files[parts] = read
            elif read and parts != ("classes.txt",):
                source.ignored.append("/".join(parts))
        samples, unused = one_image_each(files)
        labelled = [sample for sample in samples if sample.label]
        source.ignored += ["/".join(sample.parts) for sample in samples if not sample.label] + unused
        if not any(named_split(sample.parts) == "train" for sample in labelled):
            raise WEBDATASET.missing(
                f"{path}: no image with a .cls file in a shard of the split train (KEY ends at the first dot)"
            )
        if source.ignored:
            used = Counter(sample.parts[-1].partition(".")[2].lower() for sample in labelled)
            source.warnings.append(
                f"{len(labelled)} samples have an image and KEY.cls, where KEY ends at the first dot of the file name. "
                f"Read of each is one image: {', '.join(f'{count} .{name}' for name, count in used.most_common())}."
            )
        yield _named_or_numbered(path, labelled, source)


def _named_or_numbered(path: Path, samples: list[Sample], source: Source) -> Source:
    texts = ["/".join(sample.parts) for sample in samples]
    found = [label_text(sample.label, text) for sample, text in zip(samples, texts, strict=True)]
    labels, listing = set(found), path / "classes.txt"
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
            image = next(text for text, label in zip(texts, found, strict=True) if int(label) == highest)
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
    source.classes = classes
    for sample, text, label in zip(samples, texts, found, strict=True):
        items = source.splits.setdefault(named_split(sample.parts), [])
        items.append(Item(text, label_of[label], sample.read))
    return source


WEBDATASET = DataSet(
    "webdataset",
    webdataset,
    "a folder of WebDataset shards whose names say train and, if they exist, val (or valid, validation) and test "
    "(`data-train-0000.tar`, with `KEY.jpg` and `KEY.cls`, a number or a name), perhaps with `classes.txt`, a name a "
    "line",
)
