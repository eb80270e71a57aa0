"""``libranas doctor``: what is here, what a run would use, what is missing and the command that installs it."""

import argparse
import ctypes
import importlib.metadata
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

from libranas.core.provenance import cores, installed
from libranas.core.text import text_table
from libranas.runs.workflow import workflow_folder

#: Extra of pyproject.toml, or none, to what needs it.
EXTRAS = {
    "": "every run",
    "workflow": "every run",
    "cluster": "jobs through SLURM (profiles/slurm)",
    "hf": "data sets of Hugging Face",
    "tensorboard": "libranas train --tensorboard",
    "onnx": "libranas export --to onnx",
    "docs": "make docs",
    "dev": "make test",
}
#: For Debian 12 and Ubuntu, which have none. The version is the tested one (docs/containers.md).
APPTAINER = "https://github.com/apptainer/apptainer/releases/download/v1.4.5/apptainer_1.4.5_amd64.deb"
#: Program to what needs it, and what installs it.
PROGRAMS = {
    "sbatch": ("jobs through SLURM (profiles/slurm)", "apt install slurm-client, on a machine of your cluster"),
    "apptainer": ("jobs in images", f"curl -LO {APPTAINER} && apt install ./{APPTAINER.rpartition('/')[2]}"),
    "gcc": ("libranas train --compile", "apt install g++"),
    "git": ("the commit of the software in reports", "apt install git"),
}


def add(commands) -> None:
    parser = commands.add_parser("doctor", description=_doctor.__doc__)
    parser.set_defaults(run=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    """Say what is here, what a run would use, and what is missing for what, each with the command that installs it. The
    exit code is 1 if something is missing that every run needs."""
    missing = list(_missing())
    needed = [(part, how) for part, feature, how in missing if feature == EXTRAS[""]]
    optional = [(feature, part, how) for part, feature, how in missing if feature != EXTRAS[""]]
    about = [("libranas", f"{installed('libranas') or 'not installed'}, workflow in {workflow_folder()}")]
    about += [("Python", f"{platform.python_version()}, {sys.executable}"), *_devices()]
    about += [("CPU", f"{cores()} cores, which `snakemake --cores all` takes"), *_space()]
    about += [(name, shutil.which(name) or "not here") for name in PROGRAMS]
    print(text_table(("here", ""), about))
    for rows, head in ((needed, ("missing for every run",)), (optional, ("missing for", ""))):
        if rows:
            print("\n" + text_table((*head, "install with"), rows))
    print(f"\n{'A run is not possible yet.' if needed else 'Everything is here that every run needs.'}")
    return int(bool(needed))


def _missing() -> Iterator[tuple[str, str, str]]:
    """Yield what is missing: the part, what needs it, and what installs it."""
    every, python = EXTRAS[""], shlex.quote(sys.executable)
    try:
        about = importlib.metadata.metadata("libranas")
    except importlib.metadata.PackageNotFoundError:
        folder = Path(__file__).resolve().parents[2]
        yield "libranas itself: only its folder is found", every, f"{python} -m pip install {shlex.quote(str(folder))}"
        return
    extras = ["", *about.get_all("Provides-Extra", [])]
    for wanted in map(Requirement, about.get_all("Requires-Dist", [])):
        wanting = [extra for extra in extras if not wanted.marker or wanted.marker.evaluate({"extra": extra})]
        found = installed(wanted.name)
        if wanting and not (found and wanted.specifier.contains(found, prereleases=True)):
            name, state = f"{wanted.name}{wanted.specifier}", f" (here: {found})" if found else ""
            yield name + state, EXTRAS.get(wanting[0], wanting[0]), f"{python} -m pip install '{name}'"
    if installed("torch") and (error := _torch_fails()):
        yield f"torch: {error}", every, f"{python} -m pip install --force-reinstall torch torchvision"
    if sys.platform == "linux":
        try:
            ctypes.CDLL("libgomp.so.1")
        except OSError:
            yield "libgomp (LightGBM's OpenMP)", every, "apt install libgomp1"
    for program, (feature, install) in PROGRAMS.items():
        if not shutil.which(program):
            yield program, feature, install


def _torch_fails() -> Exception | None:
    """Import torch; return why it cannot be loaded."""
    try:
        import torch  # noqa: F401
    except (ImportError, OSError) as error:  # or a library that it needs is missing
        return error


def _devices() -> Iterator[tuple[str, str]]:
    """Yield lines about PyTorch, the device that `device: auto` takes, and the GPUs."""
    if _torch_fails():
        return
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"  # as networks.device, whose package needs the libraries
    yield "torch", f"{torch.__version__}, {torch.get_num_threads()} threads; device: auto is {device}"
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        yield f"GPU {index}", f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, capability {gpu.major}.{gpu.minor}"
    if not torch.cuda.device_count():
        install = f"{shlex.quote(sys.executable)} -m pip install --force-reinstall torch torchvision"
        unseen = f"; a driver is here: look at CUDA_VISIBLE_DEVICES, or install a PyTorch with CUDA: {install}"
        yield "GPU", "none that PyTorch sees" + (unseen if shutil.which("nvidia-smi") else "")


def _space() -> Iterator[tuple[str, str]]:
    """Yield lines about memory and disk, in GiB."""
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    free = os.sysconf("SC_AVPHYS_PAGES")
    yield "memory", f"{pages * page / 2**30:.1f} GiB, {free * page / 2**30:.1f} GiB unused"
    disk = shutil.disk_usage(Path.cwd())
    yield "disk", f"{disk.free / 2**30:.1f} GiB free in {Path.cwd()}"
