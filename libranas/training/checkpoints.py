"""Checkpoints of a training: written atomically, checked when read, the newest good one counts."""

import json
import logging
import re
from pathlib import Path

import torch

from libranas.errors import LibranasError
from libranas.files import atomic_path, write_json
from libranas.provenance import file_sha256

log = logging.getLogger("libranas")


class Checkpoints:
    """The files ``step-NUMBER.pt`` and ``step-NUMBER.json`` of a folder; the newest `keep` stay.

    The JSON file is written last and has the SHA-256 of the other, so a pair is complete or not there, and a damaged
    one is noticed. Tensors and plain values only: they are read with ``weights_only=True``.
    """

    def __init__(self, folder: Path, keep: int = 2):
        self.folder, self.keep = Path(folder), max(2, keep)

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, newest first."""
        found = (re.fullmatch(r"step-(\d+)\.json", path.name) for path in self.folder.glob("step-*.json"))
        return sorted((int(match[1]) for match in found if match), reverse=True)

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:09d}.pt"

    def save(self, step: int, state: dict) -> None:
        """Write the state after `step` updates, and remove the oldest ones."""
        path = self.path(step)
        with atomic_path(path) as temporary:
            torch.save(state, temporary)
        write_json(path.with_suffix(".json"), {"step": step, "sha256": file_sha256(path)})
        for old in self.steps()[self.keep :]:
            self.path(old).with_suffix(".json").unlink(missing_ok=True)
            self.path(old).unlink(missing_ok=True)

    def load(self, step: int) -> dict:
        """The state after `step` updates; ValueError says what is wrong with the file."""
        path = self.path(step)
        try:
            expected = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["sha256"]
            if file_sha256(path) != expected:
                raise ValueError("its content is not what was written (SHA-256 differs)")
            return torch.load(path, map_location="cpu", weights_only=True)
        except ValueError:
            raise
        except Exception as error:  # a damaged file raises nearly anything
            raise ValueError(f"{type(error).__name__}: {error}") from None

    def newest(self) -> tuple[int, dict] | None:
        """The newest checkpoint that can be read, as step and state; None without any file.

        Raises
        ------
        LibranasError
            If there are files and none of them can be read.
        """
        problems = []
        for step in self.steps():
            try:
                state = self.load(step)
            except ValueError as error:
                problems.append(f"{self.path(step)}: {error}")
                log.warning("Checkpoint %s cannot be read: %s. Falling back to the one before.", self.path(step), error)
                continue
            return step, state
        if problems:
            raise LibranasError(
                "No checkpoint can be read: " + "; ".join(problems) + ".",
                f"Delete {self.folder} to begin anew, or bring back a copy of it.",
            )
        return None

    def clear(self) -> None:
        """Remove all checkpoints."""
        for path in [*self.folder.glob("step-*.json"), *self.folder.glob("step-*.pt")]:
            path.unlink(missing_ok=True)
