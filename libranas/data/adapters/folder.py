"""Folders of images, one folder a class; or a tar of that."""

import bisect
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from libranas.core.errors import LibranasError
from libranas.data.adapters.listing import SPLIT_FOLDERS, list_tar, visible, walk
from libranas.data.formats import IMAGE_FORMATS, is_image
from libranas.data.source import DataSet, Item, Source, passed_over


@contextmanager
def folder(path: Path) -> Iterator[Source]:
    """Read ``{train,val,test}/CLASS/*`` or ``CLASS/*``, perhaps in an outer folder; or a tar of that."""
    if path.is_dir():
        yield _class_folders(path, walk(path))
    else:
        with ExitStack() as stack:
            yield _class_folders(path, list_tar(path, stack))


def _class_folders(path: Path, listing: Iterable[tuple[str, Callable | None]]) -> Source:
    """Read splits and classes off the folder names; hidden files are left out."""
    source, files, folders = Source([], {}), {}, set()
    for parts, read in visible(listing, source.ignored):
        if read:
            files[parts] = read
        folders.update(parts[:depth] for depth in range(1, len(parts) + (not read)))

    def inside(base: tuple) -> list[str]:
        return sorted(f[-1] for f in folders if f[:-1] == base)

    top: tuple[str, ...] = ()
    while True:
        tops = inside(top)
        named = [n for n in tops if n.lower() in SPLIT_FOLDERS]
        # "train" without folders in it is a class of its own (vehicles have one), not a split.
        splits = [n for n in named if inside((*top, n))]
        if splits or len(tops) != 1 or not inside((*top, *tops)):
            break
        top = (*top, *tops)
    bases = {(*top, n): SPLIT_FOLDERS[n.lower()] for n in splits} or {top: "train"}
    if tops and not splits and named == tops:
        raise FOLDER.missing(f"{path}: no class folders in {', '.join(named)}")
    if len(set(bases.values())) < len(bases) or "train" not in bases.values():
        raise FOLDER.missing(f"{path} has {', '.join(splits)}: no train folder, or two for one split")

    names = {split: inside(base) for base, split in bases.items()}
    classes = names["train"]
    for split in names:
        if odd := sorted(set(classes) ^ set(names[split])):
            here, there = ("train", split) if odd[0] in classes else (split, "train")
            raise LibranasError(
                f"{path}: the class folder '{odd[0]}' is in {here}, not in {there} ({len(odd)} such).",
                "Every split needs the same class folders: add the missing ones or remove the odd ones.",
            )
    source.classes, source.splits = classes, {split: [] for split in names}
    for parts, read in sorted(files.items(), key=lambda file: file[0]):
        base = parts[: len(top) + bool(splits)]
        if base in bases and len(parts) > len(base) + 1 and is_image(parts[-1], read):
            label = bisect.bisect_left(classes, parts[len(base)])
            source.splits[bases[base]].append(Item("/".join(parts), label, read))
        else:
            source.ignored.append("/".join(parts))
    if not any(source.splits.values()):
        raise FOLDER.missing(f"{path}: no image in a class folder, {len(source.ignored)} other file(s)")
    for split, items in source.splits.items():
        if empty := sorted(set(classes) - {classes[item.label] for item in items}):
            others = f" {passed_over(source.ignored)}" if source.ignored else ""
            raise LibranasError(
                f"{path}: no image in the class folder(s) {', '.join(empty[:10])} of {split}.{others}",
                f"Put images ({', '.join(IMAGE_FORMATS)}) there or remove the class everywhere.",
            )
    return source


FOLDER = DataSet(
    "folder",
    folder,
    "a folder (or .tar, perhaps compressed) with `train/CLASS/*.jpg` and, if they exist, `val/CLASS/*.jpg` and "
    "`test/CLASS/*.jpg`; or with `CLASS/*.jpg` directly",
)
