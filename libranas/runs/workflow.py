"""The folder of the workflow: Snakefile, rules, scripts, config.yaml, presets and profiles."""

from pathlib import Path

import libranas
from libranas.core.errors import LibranasError


def workflow_folder() -> Path:
    """Return the folder with the Snakefile: an installed package holds it, in a checkout the package lies beside it."""
    package = Path(libranas.__file__).resolve().parent
    for folder in (package / "workflow", package.parent):
        if (folder / "Snakefile").is_file():
            return folder
    raise LibranasError(
        f"The workflow (Snakefile, rules, scripts) is not with the package in {package}.",
        "Install libranas again: pip install --force-reinstall --no-deps libranas",
    )
