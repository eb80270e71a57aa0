"""Notice that files of the user have changed. Snakemake looks at times only, and only at those of a rule's inputs."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from libranas.core.provenance import digest, file_sha256
from libranas.data.adapters.listing import walk
from libranas.data.source import is_hidden

#: Files and bytes whose content is read; of more, times tell.
MOST_FILES, MOST_BYTES = 1000, 2**25


def state_of(path: str | os.PathLike | None) -> str | None:
    """Return a hash of what a file or the files of a folder hold; None if there is no such path.

    Of much content the sizes and times of the files are taken for it. Hidden files and the times of folders do not
    count: looking may change both. LibranasError for a folder that cannot be listed.
    """
    if not path or not (top := Path(path).expanduser()).exists():
        return None
    names = [name.removeprefix("./") for name, read in walk(top) if read] if top.is_dir() else [""]
    names = sorted(name for name in names if not is_hidden(name.split("/")))
    found = [_file(f"{top}/{name}" if name else top) for name in names]
    if len(found) <= MOST_FILES and sum(size for _, size, _ in found) <= MOST_BYTES:
        return digest(names, [_content(path) for path, _, _ in found])
    return digest(names, [(size, time) for _, size, time in found])


def _content(path: str | os.PathLike | None) -> str | None:
    with suppress(OSError):
        return path and file_sha256(path)


def _file(path: str | os.PathLike) -> tuple:
    """Return a file's path, size and time; None and zeros if it is a pipe, or a link that leads nowhere."""
    try:
        status = os.stat(path)
    except OSError:
        return None, 0, 0
    return (path, status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else (None, 0, 0)
