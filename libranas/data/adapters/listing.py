"""List files in folders and tars. Tar members are read where they lie; nothing is unpacked."""

import functools
import gzip
import os
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from libranas.core.errors import LibranasError

SPLIT_FOLDERS = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}


def walk(path: Path) -> Iterator[tuple[str, Callable | None]]:
    """List each file: its path below `path`, and a function that reads it; None as the function of a folder."""

    def unreadable(error: OSError):
        raise LibranasError(f"Cannot list {error.filename}: {error.strerror}.", "Make it readable.")

    for here, folders, names in os.walk(path, onerror=unreadable, followlinks=True):
        below = Path(here).relative_to(path).as_posix()
        yield below, None
        for name in names:
            yield f"{below}/{name}", Path(here, name).read_bytes
        for name in [name for name in folders if _leads_back(path, Path(here, name))]:
            folders.remove(name)
            yield f"{below}/{name}", _no_file


def _leads_back(top: Path, folder: Path) -> bool:
    """Return whether `folder` is a link to a folder above it. Such a link leads to other classes, without end."""
    if not folder.is_symlink():
        return False
    target, above = folder.resolve(), folder.parents[: len(folder.relative_to(top).parts)]
    return any(parent.resolve().is_relative_to(target) for parent in above)


#: What tarfile raises for damaged headers, and for those that state impossible sizes.
TAR_DAMAGE = (tarfile.TarError, EOFError, ValueError, OverflowError, MemoryError, RecursionError)


def list_tar(path: Path, stack: ExitStack, nested: bool = False) -> list[tuple[str, Callable | None]]:
    """List the files of a tar as :func:`walk` does, with `nested` also for the tars in it as if they were folders.

    A compressed one is first decompressed to an unnamed temporary file, which `stack` keeps open: images are wanted
    in another order than theirs, and gzip reads forward only.
    """
    try:
        with ExitStack() as opened:
            archive = opened.enter_context(open(path, "rb"))
            # Opened for each image, since thousands of shards are more than a process may have open
            read_at = functools.partial(_read_at, path)
            if archive.read(2) == b"\x1f\x8b":
                archive = stack.enter_context(tempfile.TemporaryFile())
                # pread moves no shared file position, so that threads need no lock
                read_at = functools.partial(os.pread, archive.fileno())
                with gzip.open(path) as unzipped:
                    shutil.copyfileobj(unzipped, archive, 1 << 20)
            end = archive.seek(0, os.SEEK_END)
            archive.flush()
            return list(tar_members(archive, 0, end, read_at, nested))
    except (*TAR_DAMAGE, zlib.error, gzip.BadGzipFile) as error:
        raise LibranasError(
            f"{path} is not a complete tar or tar.gz file: it is cut off or damaged ({error}).",
            "Copy or download it again.",
        ) from error
    except OSError as error:
        raise LibranasError(
            f"Cannot read {path}: {error.strerror or error}.",
            f"Check that it is readable and that {tempfile.gettempdir()} (elsewhere: set TMPDIR) has room "
            "for a decompressed copy.",
        ) from error


def tar_members(
    archive: BinaryIO, start: int, end: int, read_at: Callable, nested: bool
) -> Iterator[tuple[str, Callable | None]]:
    """List names and readers of a tar at bytes `start` to `end` of a file that ``read_at(size, offset)`` reads."""
    # tarfile takes a file that was cut inside a header for a complete one; the end mark tells.
    archive.seek(max(start, end - 512))
    if archive.read(min(512, end - start)) != bytes(512):
        raise tarfile.ReadError("no end mark")
    archive.seek(start)
    with tarfile.open(fileobj=archive, mode="r:") as tar:
        for member in tar:
            # Behind a size below zero tarfile goes back, and reads the same members for ever
            if member.size < 0 or tar.offset <= member.offset:
                raise tarfile.ReadError(f"{member.name} has an impossible size")
            last = member.offset_data + member.size
            if member.isdir():
                yield member.name, None
            elif not member.isreg() or member.issparse():
                yield member.name, _no_file
            elif last > end:
                raise tarfile.ReadError(f"{member.name} ends beyond the archive")
            elif nested and member.name.endswith(".tar"):
                for name, read in tar_members(archive, member.offset_data, last, read_at, False):
                    yield f"{member.name}/{name}", read
            else:
                yield member.name, functools.partial(read_at, member.size, member.offset_data)


def _read_at(path: Path, size: int, offset: int) -> bytes:
    with open(path, "rb") as file:
        return os.pread(file.fileno(), size, offset)


def _no_file() -> bytes:
    raise OSError("a link or special file, whose content is not read")


def name_parts(name: str) -> tuple[str, ...]:
    """Split a name from outside into folders and file name; () for hidden files and for names with '..'."""
    # Names that are not UTF-8 arrive with surrogates, which neither HDF5 nor JSON readers take.
    parts = tuple(p for p in name.encode("utf-8", "replace").decode().split("/") if p not in ("", "."))
    return () if any(p.startswith(".") or p == "__MACOSX" for p in parts) else parts


def named_split(parts: tuple[str, ...]) -> str | None:
    """Return the split in the innermost name of a folder or tar that has one: imagenet-train-and-val.tar/val/..."""
    for name in reversed(parts[:-1]):
        if found := re.findall(rf"(?<![a-z])({'|'.join(SPLIT_FOLDERS)})(?![a-z])", name.lower()):
            return SPLIT_FOLDERS[found[0]]
    return None


def expanded(path: Path, stack: ExitStack) -> Iterator[tuple[str, Callable | None]]:
    """List files as :func:`walk` does, those in tars too."""
    if not path.is_dir():
        yield from ((f"{path.name}/{name}", read) for name, read in list_tar(path, stack, nested=True))
        return
    for name, read in walk(path):
        if read and name.endswith((".tar", ".tar.gz")):
            yield from (
                (f"{name}/{inner}", inner_read) for inner, inner_read in list_tar(path / name, stack, nested=True)
            )
        else:
            yield name, read
