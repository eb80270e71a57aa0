"""Record where a number came from: versions of code, hashes, machine."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

#: Snakemake sees changes of scripts, not of the package behind them, so each rule has :func:`stage_version` as a
#: parameter. Raise a number whenever the stage's results change for the same input
#: (``tests/contract/test_stage_versions.py`` checks that).
STAGE_VERSIONS = {
    "prepare": 2,
    "latency": 2,
    "sample": 1,
    "score": 6,
    "layers": 2,
    "benchmark": 4,
    "agreement": 1,
    "libra": 6,
    "search": 3,
    "train": 4,
    "export": 3,
    "report": 7,
}


def stage_version(stage: str) -> str:
    """Return name and version of a workflow stage; part of the rule's parameters and of every cached record.

    Not a bare number: Snakemake compares a rule's parameters as a set, where version 2 and seed 3 hide a change of 2
    to 3.
    """
    return f"{stage} {STAGE_VERSIONS[stage]}"


def digest(*parts) -> str:
    """Return a short hash (16 hex digits) of values with a stable ``repr``; identifies what a record depends on."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def file_sha256(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file's bytes."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _git(*args: str) -> str | None:
    where = Path(__file__).resolve().parents[2]
    if not (where / ".git").exists():  # installed: a repository around it is the user's
        return None
    try:
        out = subprocess.run(["git", *args], cwd=where, capture_output=True, text=True, timeout=10, check=True)
        return out.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _gpu_names() -> list[str]:
    torch = sys.modules.get("torch")  # stages that need no torch must not import it for this
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


#: Packages whose versions are kept with results.
PACKAGES = ["torch", "torchvision", "timm", "numpy", "pandas", "scikit-learn", "lightgbm", "pymoo", "h5py", "snakemake"]


def facts() -> dict:
    """Return the conditions of a run: versions, commit, machine, time. JSON-ready, without user names or paths."""
    return {
        "libranas": installed("libranas") or "not installed",
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := installed(name))},
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cores": cores(),
        "gpu": _gpu_names(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
