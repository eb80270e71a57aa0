"""WebDataset shards."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from libranas.core.errors import LibranasError
from libranas.data.adapters.listing import IMAGE_SUFFIXES, expanded, name_parts, named_split
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


@contextmanager
def webdataset(path: Path) -> Iterator[Source]:
    """Read WebDataset shards where they lie, in any order. Classes are numbers, which classes.txt may name; or
    names, in their sorted order."""
    with ExitStack() as stack:
        files = {parts: read for name, read in expanded(path, stack) if read and (parts := name_parts(name))}
        found, ignored = [], []
        for parts, read in sorted(files.items(), key=lambda file: file[0]):
            text, split, suffix = "/".join(parts), named_split(parts), Path(parts[-1]).suffix.lower()
            label = files.get((*parts[:-1], parts[-1].split(".")[0] + ".cls"))
            if split and label and suffix in IMAGE_SUFFIXES:
                found.append((split, text, label_text(label, text), read))
            elif suffix in IMAGE_SUFFIXES:
                ignored.append(text)
        if not any(split == "train" for split, *_ in found):
            raise WEBDATASET.missing(f"{path}: no image with a .cls file in a shard of the split train")
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


WEBDATASET = DataSet(
    "webdataset",
    webdataset,
    "a folder of WebDataset shards whose names say train and, if they exist, val (or valid, validation) and test "
    "(`data-train-0000.tar`, with `KEY.jpg` and `KEY.cls`, a number or a name), perhaps with `classes.txt`, a name a "
    "line",
)
