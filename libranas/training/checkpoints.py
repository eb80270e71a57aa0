"""Checkpoints of a training: written atomically, checked when read; the newest good one counts."""

import itertools
import logging
from collections.abc import Callable
from pathlib import Path

import torch

from libranas.core.errors import LibranasError
from libranas.core.files import atomic_path
from libranas.core.provenance import file_sha256

log = logging.getLogger("libranas")

#: Digits of the SHA-256 in a name.
_DIGITS = 16


class Checkpoints:
    """The files ``step-NUMBER-HASH.pt`` of a folder; those of the newest two steps stay.

    HASH begins the SHA-256 of the content, so a damaged file is noticed, and a second checkpoint of a step is another
    file than the first. Tensors and plain values only: they are read with ``weights_only=True``.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    def paths(self) -> list[Path]:
        """Return the checkpoints, newest first."""
        found = self.folder.glob(f"step-?????????-{'?' * _DIGITS}.pt")
        return sorted(found, key=lambda path: (_step(path), path.stat().st_mtime_ns), reverse=True)

    def save(self, step: int, state: dict) -> Path:
        """Write the state after `step` updates, and remove the oldest ones and what a kill left half-written."""
        # Through a file of Python's: to a path PyTorch does not say that the disk is full.
        with atomic_path(self.folder / "new.pt") as temporary, open(temporary, "wb") as file:
            torch.save(state, file)
        new = self.folder / "new.pt"
        path = new.rename(self.folder / f"step-{step:09d}-{file_sha256(new)[:_DIGITS]}.pt")
        by_step = itertools.groupby([path, *(other for other in self.paths() if other != path)], _step)
        kept = {next(paths) for _, paths in itertools.islice(by_step, 2)}
        for other in [*self.folder.glob("step-*"), *self.folder.glob(".new.*")]:
            if other not in kept:
                other.unlink(missing_ok=True)
        return path

    def load(self, path: Path) -> dict:
        """Read the state in a file; ValueError says what is wrong with it."""
        try:
            if file_sha256(path)[:_DIGITS] != path.stem.rsplit("-", 1)[1]:
                raise ValueError("its content is not what was written (SHA-256 differs)")
            return torch.load(path, map_location="cpu", weights_only=True)
        except ValueError:
            raise
        except Exception as error:  # a damaged file raises nearly anything
            raise ValueError(f"{type(error).__name__}: {error}") from None

    def newest(self, belongs: Callable[[dict], bool] = lambda state: True) -> tuple[Path, dict] | None:
        """Read the newest checkpoint that can be read, as path and state; None without any file.

        If its state does not belong to this run, all checkpoints are removed, and None is returned. LibranasError if
        there are files and none of them can be read.
        """
        problems = []
        for path in self.paths():
            try:
                state = self.load(path)
            except ValueError as error:
                problems.append(f"{path}: {error}")
                log.warning("Checkpoint %s cannot be read: %s. Falling back to the one before.", path, error)
                continue
            if belongs(state):
                return path, state
            log.info("Checkpoints in %s are of other settings, data or versions; it begins anew.", self.folder)
            for other in self.folder.glob("step-*"):
                other.unlink(missing_ok=True)
            return None
        if problems:
            raise LibranasError(
                "No checkpoint can be read: " + "; ".join(problems) + ".",
                f"Delete {self.folder} to begin anew, or bring back a copy of it.",
            )
        return None


def _step(path: Path) -> int:
    return int(path.name.split("-")[1])
