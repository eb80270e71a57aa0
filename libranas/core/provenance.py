"""Where a number came from: random streams, versions of code, machine.

Seeds
    One master seed names many independent streams: ``stream_seed(master, "init", arch.id, 2)``. A
    stream does not depend on which others were drawn or in which order, so a resumed, sharded or
    partial run draws the same numbers as an undisturbed one.

Stage versions
    Snakemake sees changes of scripts, not of the package behind them. Each rule therefore carries
    ``stage_version(name)`` as a parameter: raise a stage's number whenever its results change for the
    same input. ``tests/contract/test_stage_versions.py`` ties each number to golden results.
"""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

STAGE_VERSIONS = {
    "prepare": 1,
    "latency": 2,
    "sample": 1,
    "score": 5,
    "layers": 2,
    "benchmark": 2,
    "agreement": 1,
    "libra": 3,
    "search": 2,
    "train": 3,
    "export": 3,
    "report": 4,
}


def stage_version(stage: str) -> str:
    """Name and version of a workflow stage; part of the rule's parameters and of every cached record.

    Not a bare number: Snakemake compares the parameters of a rule as a set of values, in which a number that
    changes is not seen where others are equal to the old and the new one (version 2 and seed 3 hide a change
    of 2 seeds to 3).
    """
    return f"{stage} {STAGE_VERSIONS[stage]}"


def digest(*parts) -> str:
    """Short hash (16 hex digits) of values with a stable ``repr``; identifies what a record depends on."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def file_sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _git(*args: str) -> str | None:
    try:
        out = subprocess.run(
            ["git", *args],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        return out.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _gpu_names() -> list[str]:
    torch = sys.modules.get("torch")  # stages that need no torch must not import it for this
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def facts() -> dict:
    """The conditions of a run: versions, commit, machine, time. JSON-ready, without user names or paths."""
    packages = (
        "torch",
        "torchvision",
        "timm",
        "numpy",
        "pandas",
        "scikit-learn",
        "lightgbm",
        "pymoo",
        "h5py",
        "snakemake",
    )
    versions = {}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    try:
        ours = importlib.metadata.version("libranas")
    except importlib.metadata.PackageNotFoundError:
        ours = "not installed"
    return {
        "libranas": ours,
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "python": platform.python_version(),
        "packages": versions,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": _gpu_names(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
