"""List files in folders and tars. Tar members are read where they lie; nothing is unpacked."""

import bz2
import functools
import gzip
import lzma
import os
import re
import shutil
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from libranas.core.errors import LibranasError
from libranas.data.source import is_hidden

SPLIT_FOLDERS = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}
#: First bytes of a compressed file to what opens it. A tar begins with a name, which may be BZhang.
_COMPRESSED = {rb"\x1f\x8b": gzip.open, rb"BZh\d1AY&SY": bz2.open, rb"\xfd7zXZ\0": lzma.open}


def walk(path: Path) -> Iterator[tuple[str, Callable | None]]:
    """List each file: its path below `path`, and ``read(size=-1)`` of its first bytes or all; None for a folder."""

    def unreadable(error: OSError):
        raise LibranasError(f"Cannot list {error.filename}: {error.strerror}.", "Make it readable.")

    for here, folders, names in os.walk(path, onerror=unreadable, followlinks=True):
        below = Path(here).relative_to(path).as_posix()
        yield below, None
        for name in names:
            yield f"{below}/{name}", functools.partial(_read_file, f"{here}/{name}")
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

    A compressed one (gzip, bzip2, xz) is first decompressed to an unnamed temporary file, which `stack` keeps open:
    images are wanted in another order than theirs, and these formats are read forward only.
    """
    try:
        with ExitStack() as opened:
            archive = opened.enter_context(open(path, "rb"))
            # Opened for each image, since thousands of shards are more than a process may have open
            read_at = functools.partial(_read_at, path)
            head = archive.read(10)
            if decompress := next((opener for first, opener in _COMPRESSED.items() if re.match(first, head)), None):
                archive = stack.enter_context(tempfile.TemporaryFile())
                # pread moves no shared file position, so that threads need no lock
                read_at = functools.partial(os.pread, archive.fileno())
                with decompress(path) as unzipped:
                    shutil.copyfileobj(unzipped, archive, 1 << 20)
            end = archive.seek(0, os.SEEK_END)
            archive.flush()
            return list(tar_members(archive, 0, end, read_at, nested))
    except (*TAR_DAMAGE, zlib.error, lzma.LZMAError, OSError) as error:
        if not isinstance(error, OSError) or error.errno is None:  # as gzip and bz2 report damage
            raise LibranasError(
                f"{path} is not a complete tar file: it is cut off or damaged ({error}).",
                "Copy or download it again. It may be compressed by gzip, bzip2 or xz.",
            ) from error
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
            elif nested and member.name.lower().endswith(".tar"):
                for name, read in tar_members(archive, member.offset_data, last, read_at, False):
                    yield f"{member.name}/{name}", read
            else:
                yield member.name, functools.partial(_read_member, read_at, member.offset_data, member.size)
        archive.seek(tar.offset)
        if any(archive.read(min(end - tar.offset, 1 << 20))):  # as behind `cat a.tar b.tar`
            raise tarfile.ReadError("members follow the end mark")


def _read_file(path: str, size: int = -1) -> bytes:
    if not stat.S_ISREG(os.stat(path).st_mode):  # reading a pipe would never end
        _no_file()
    with open(path, "rb") as file:
        return file.read(size)


def _read_at(path: Path, size: int, offset: int) -> bytes:
    with open(path, "rb") as file:
        return os.pread(file.fileno(), size, offset)


def _read_member(read_at: Callable, offset: int, length: int, size: int = -1) -> bytes:
    return read_at(length if size < 0 else min(size, length), offset)


def _no_file(size: int = -1) -> bytes:
    raise OSError("a link or special file, whose content is not read")


def visible(
    listing: Iterable[tuple[str, Callable | None]], ignored: list[str]
) -> Iterator[tuple[tuple, Callable | None]]:
    """Give the names of a listing as folders and file name; hidden files and those with '..' go to `ignored`."""
    for name, read in listing:
        # Names that are not UTF-8 arrive with surrogates, which neither HDF5 nor JSON readers take.
        readable = name.encode("utf-8", "backslashreplace").decode()
        parts = tuple(p for p in readable.split("/") if p not in ("", "."))
        if not is_hidden(parts):
            yield parts, read
        elif read:
            ignored.append("/".join(parts))


def named_split(parts: tuple[str, ...]) -> str | None:
    """Return the split in the innermost name of a folder or tar that has one: imagenet-train-and-val.tar/val/..."""
    for name in reversed(parts[:-1]):
        if found := re.findall(rf"(?<![a-z])({'|'.join(SPLIT_FOLDERS)})(?![a-z])", name.lower()):
            return SPLIT_FOLDERS[found[0]]
    return None


#: Suffixes of tars, also of those whose compression is not read: they are named in an error then.
_TAR = re.compile(r"\.(tar(\.(gz|bz2|xz|zst|lz4|z))?|tgz|tbz2?|txz|tzst)$", re.IGNORECASE)


def expanded(path: Path, stack: ExitStack) -> Iterator[tuple[str, Callable | None]]:
    """List files as :func:`walk` does, those in tars too."""
    if not path.is_dir():
        yield from ((f"{path.name}/{name}", read) for name, read in list_tar(path, stack, nested=True))
        return
    for name, read in walk(path):
        if read and _TAR.search(name):
            yield from (
                (f"{name}/{inner}", inner_read) for inner, inner_read in list_tar(path / name, stack, nested=True)
            )
        else:
            yield name, read
