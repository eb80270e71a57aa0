"""Write files so that a kill at any moment leaves either the old file or the new one.

:func:`atomic_path` is for whole files, :class:`AppendLog` for the progress of work.
"""

import errno
import fcntl
import glob
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from libranas.core.errors import LibranasError


def user_path(text: str | os.PathLike) -> Path:
    """Return the path that a user wrote; ``~`` is the home folder, ``~NAME`` that of a user if there is one."""
    return Path(os.path.expanduser(text))


def disk_error(error: OSError, path: Path) -> LibranasError:
    """Translate an operating-system error on `path` into one that tells the user what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LibranasError(
            f"No space left on the disk while writing {path}.",
            "Free some space (or write to a larger disk: `results` in the config, --output) and run the same command "
            "again: nothing was half-written, finished work is kept.",
        )
    return LibranasError(f"Cannot write {path}: {error.strerror}.", "Check that the folder exists and is yours.")


@contextmanager
def _explained(path: str | os.PathLike) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise disk_error(error, Path(path)) from error


def _of_the_system(error: BaseException) -> OSError | None:
    """Return the system's error behind one that a library raised while it wrote; None if there is none.

    h5py and safetensors put it into their text, PyTorch raises another error while it handles it.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        error = error.__context__
    return None


def _lives(process: int) -> bool:
    """Whether a process runs; not one that was killed and nobody has waited for, as in a container without an init."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    with suppress(OSError):  # Linux only
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return True


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed and renamed to `path`.

    On any exception the temporary file is removed and `path` stays as it was. Temporary files of `path` that killed
    processes left behind are removed first.
    """
    path = Path(path)
    # The suffix is kept at the end, because writers (matplotlib, h5py, torch) look at it.
    begin, end = f".{path.stem}.", f".tmp{path.suffix}"
    temporary = path.with_name(f"{begin}{os.getpid()}{end}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for other in path.parent.glob(f"{glob.escape(begin)}*{glob.escape(end)}"):
            number = other.name.removeprefix(begin).removesuffix(end)
            if number.isdigit() and not _lives(int(number)):
                other.unlink(missing_ok=True)
        yield temporary
        with open(temporary, "rb+") as f:
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except LibranasError:  # already explained
        raise
    except Exception as error:
        if (cause := _of_the_system(error)) is None:
            raise
        raise disk_error(cause, path) from error
    finally:
        with suppress(NotADirectoryError):  # a file where the folder should be: already told above
            temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write `text` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, value) -> None:
    """Write `value` as indented JSON to `path` atomically (NaN as null, so that any reader takes it)."""
    write_text(path, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike):
    """Read a JSON file; a missing or torn file is named in the error."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LibranasError(f"{path} does not exist.", "Run the workflow stage that makes it.") from None
    except json.JSONDecodeError as error:
        raise LibranasError(
            f"{path} is not valid JSON (line {error.lineno}: {error.msg}).", "Delete it and run again."
        ) from None


def plain(value):
    """Turn numpy's values, tuples and non-finite floats into what JSON knows."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):  # numpy scalar or array
        return plain(value.tolist())
    if (isinstance(value, float) and value != value) or value in (float("inf"), float("-inf")):
        return None
    return value


def lock(descriptor: int, what: str, todo: str) -> None:
    """Lock an open file until it is closed or its process ends; LibranasError(what, todo) if another process has it.

    On a file system without locks (some network ones) nothing is locked.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LibranasError(what, todo) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise


def read_log(path: str | os.PathLike) -> list[dict]:
    """Read the complete records of a log, which another process may be writing; none if there is no file."""
    with _explained(path), suppress(FileNotFoundError):
        return _records(Path(path))[0]
    return []


def _records(path: Path) -> tuple[list[dict], int]:
    """Read the complete records of a log, and how many bytes they take."""
    records, good = [], 0
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            break  # torn by a kill in the middle of a write, or being written
        try:
            records.append(json.loads(line))
        except ValueError:
            raise LibranasError(
                f"{path}, line {number}: not a JSON record; the file was damaged.",
                "Delete this file and run again; its work is then repeated.",
            ) from None
        good += len(line)
    return records, good


class AppendLog:
    """An append-only file of JSON objects, one a line, that survives ``kill -9``.

    Opening it reads what is there and cuts off a torn last line. Floats round-trip exactly (NaN and infinities
    included). A log that another process has open is a LibranasError.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        with _explained(path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "ab")  # noqa: SIM115 - closed by close()
            lock(
                self._file.fileno(),
                f"{self.path} is being written by another process, perhaps one that a killed run left behind.",
                "Wait until it has ended, or end it (`ps` shows its script below .snakemake/scripts); then run again.",
            )
            self.records, good = _records(self.path)
            self._file.truncate(good)

    def append(self, record: dict) -> None:
        """Add one record and flush it to disk."""
        with _explained(self.path):
            self._file.write(json.dumps(record, separators=(",", ":")).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        self.records.append(record)

    def keep(self, count: int) -> None:
        """Drop the records after the first `count`."""
        with _explained(self.path):
            lines = self.path.read_bytes().splitlines(keepends=True)
            self._file.truncate(sum(map(len, lines[:count])))
            os.fsync(self._file.fileno())
        del self.records[count:]

    def close(self) -> None:
        with _explained(self.path):  # a full disk can surface only here
            if not self._file.closed:
                with suppress(OSError):  # a file system without locks
                    fcntl.flock(self._file.fileno(), fcntl.LOCK_UN)  # forked processes may have the file open still
            self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
