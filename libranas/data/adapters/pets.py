"""Oxford-IIIT Pets."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from libranas.core.errors import LibranasError
from libranas.data.source import DataSet, Item, Source


@contextmanager
def pets(path: Path) -> Iterator[Source]:
    """Read Oxford-IIIT Pets, 37 breeds, as torchvision keeps them: trainval.txt is train, test.txt is test."""
    base = path / "oxford-iiit-pet" if (path / "oxford-iiit-pet").is_dir() else path
    splits, breeds = {}, {}
    for split, name in (("train", "trainval"), ("test", "test")):
        listing = base / "annotations" / f"{name}.txt"
        if not listing.is_file() or not (base / "images").is_dir():
            raise PETS.missing(f"{base} lacks images or annotations/{name}.txt")
        items = splits[split] = []
        for number, line in enumerate(listing.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            # An image's name from the file has neither slash nor dot, so it stays in the folder of the images.
            match = re.fullmatch(r"(([A-Za-z0-9_-]+)_\d+) (\d+) \d+ \d+", line)
            if not match or breeds.setdefault(int(match[3]), match[2]) != match[2]:
                raise LibranasError(
                    f"{listing}, line {number}: {line[:80]!r} is not 'IMAGE CLASS SPECIES BREED', one CLASS a breed.",
                    "Unpack annotations.tar.gz again.",
                )
            items.append(
                Item(f"images/{match[1]}.jpg", int(match[3]) - 1, (base / "images" / f"{match[1]}.jpg").read_bytes)
            )
    if sorted(breeds) != list(range(1, len(breeds) + 1)):
        raise LibranasError(f"{base}: the classes {sorted(breeds)} are not 1 to {len(breeds)}.", "Unpack it again.")
    yield Source([breeds[number] for number in sorted(breeds)], splits)


PETS = DataSet(
    "pets",
    pets,
    "the folder with `oxford-iiit-pet` (unpacked: `images/*.jpg`, `annotations/trainval.txt`, `annotations/test.txt`)",
    "`trainval.txt` as train, test",
)
