"""WebDataset shards."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from libranas.core.errors import LibranasError
from libranas.data.adapters.listing import IMAGE_SUFFIXES, _expanded, _named_split, _parts
from libranas.data.source import Item, Source, _given, _missing

#: Bytes of a .cls file, and classes that have numbers instead of names, which are believed.
LONGEST_LABEL, MOST_CLASSES = 1000, 1_000_000


def _label(read: Callable, image: str) -> str:
    """What the .cls file of an image says."""
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


def _number(label: str, image: str) -> int:
    try:
        return int(label)
    except ValueError:
        raise LibranasError(
            f"{image}: its .cls file has {label[:20]!r}, not a number.", "Make the shards again."
        ) from None


@contextmanager
def webdataset(path: Path | None) -> Iterator[Source]:
    """WebDataset shards, read where they lie and in any order. Classes are numbers, which classes.txt may name; or
    names, in their sorted order."""
    path = _given(path, "webdataset")
    with ExitStack() as stack:
        files = {parts: read for name, read in _expanded(path, stack) if read and (parts := _parts(name))}
        found, ignored = [], []
        for parts, read in sorted(files.items(), key=lambda file: file[0]):
            text, split, suffix = "/".join(parts), _named_split(parts), Path(parts[-1]).suffix.lower()
            label = files.get((*parts[:-1], parts[-1].split(".")[0] + ".cls"))
            if split and label and suffix in IMAGE_SUFFIXES:
                found.append((split, text, _label(label, text), read))
            elif suffix in IMAGE_SUFFIXES:
                ignored.append(text)
        if not any(split == "train" for split, *_ in found):
            raise _missing("webdataset", f"{path}: no image with a .cls file in a shard of the split train")
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
