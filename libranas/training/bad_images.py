"""Count the images that a training cannot read; too many are an error."""

import json
from pathlib import Path

from libranas.core.errors import LibranasError
from libranas.core.files import read_log
from libranas.training.images import Images


class BadImages:
    """Names of unreadable images, which outlive a kill: a file ``bad_images-RANK.jsonl`` for each process."""

    def __init__(self, folder: Path | None, limit: int, rank: int = 0):
        self.folder, self.limit, self.rank = folder, limit, rank

    def add(self, images: Images, index: int, error: Exception) -> None:
        """Record an image; LibranasError if none may be unreadable."""
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        if self.folder is None or not self.limit:
            raise LibranasError(
                f"The image {images.name(index)} cannot be read: {reason}.",
                "Mend or remove it, or allow some with --bad-images NUMBER.",
            ) from error
        line = json.dumps({"image": images.name(index), "reason": reason.splitlines()[0][:300]}) + "\n"
        with open(self.folder / f"bad_images-{self.rank}.jsonl", "ab", buffering=0) as file:
            file.write(line.encode())

    def found(self) -> dict[str, str]:
        """Return the reason of each image, by name."""
        paths = sorted(self.folder.glob("bad_images-*.jsonl")) if self.folder else []
        return {entry["image"]: entry["reason"] for path in paths for entry in read_log(path)}

    def check(self) -> int:
        """Return their number; LibranasError if it is above the limit."""
        found = self.found()
        if len(found) > self.limit:
            first = "".join(f"\n     {name}: {reason}" for name, reason in list(found.items())[:10])
            raise LibranasError(
                f"{len(found)} images cannot be read, {self.limit} are allowed. The first of them:{first}",
                "Mend or remove them, or allow more with --bad-images NUMBER.",
            )
        return len(found)
