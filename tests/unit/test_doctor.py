"""`libranas doctor`, with things missing."""

import ctypes
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from libranas.cli import doctor, main
from libranas.core import provenance

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def said(capsys):
    """Run the command; return its exit code and what it printed."""

    def run() -> tuple[int, str]:
        code = main(["doctor"])
        return code, capsys.readouterr().out

    return run


def without(*packages: str):
    """Return a look-up of versions that does not find `packages`."""
    return lambda name: None if name in packages else provenance.installed(name)


def line(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(start))


def test_it_says_what_is_here(said):
    code, text = said()
    assert code == 0 and "Everything is here that every run needs." in text
    for what in ("torch", "CPU", "memory", "disk", "GPU", "sbatch", "apptainer", "gcc"):
        assert len(line(text, what).split()) > 1
    assert "device: auto is" in line(text, "torch") and sys.executable in line(text, "Python")


def test_what_every_run_needs_ends_with_1_and_the_command_that_installs_it(said, monkeypatch):
    monkeypatch.setattr(doctor, "installed", without("snakemake", "timm"))
    code, text = said()
    assert code == 1 and "A run is not possible yet." in text
    for name in ("snakemake<", "timm>="):
        assert f"{sys.executable} -m pip install '{name}" in line(text, name)


def test_a_package_that_is_too_old_is_named_with_its_version(said, monkeypatch):
    monkeypatch.setattr(doctor, "installed", lambda name: "0.1" if name == "h5py" else provenance.installed(name))
    code, text = said()
    assert code == 1 and "h5py>=3.11 (here: 0.1)" in text


def test_missing_extras_and_programs_end_with_0_and_say_what_needs_them(said, monkeypatch):
    monkeypatch.setattr(doctor, "installed", without("datasets", "snakemake-executor-plugin-slurm"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    code, text = said()
    assert code == 0
    assert "datasets>=3" in line(text, "data sets of Hugging Face") and "pip install" in line(text, "data sets of")
    assert "snakemake-executor-plugin-slurm" in line(text, "jobs through SLURM")
    assert "apt install g++" in line(text, "libranas train --compile")
    assert line(text, "sbatch").split() == ["sbatch", "not", "here"]
    missing = text.split("install with")[1].strip().split("\n\n")[0].splitlines()
    assert len(missing) >= len(doctor.PROGRAMS) and all(re.search(r" (apt|pip) install ", row) for row in missing)


def test_libraries_that_cannot_be_loaded_are_told_of(said, monkeypatch):
    def fails(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", fails)
    monkeypatch.setitem(sys.modules, "torch", None)
    code, text = said()
    assert code == 1 and "apt install libgomp1" in text
    assert "--force-reinstall torch" in line(text, "torch: ") and "device: auto" not in text


def test_a_folder_that_is_not_installed_is_told_of(said, monkeypatch):
    def lacks(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "metadata", lacks)
    code, text = said()
    assert code == 1 and f"{sys.executable} -m pip install {ROOT}" in line(text, "libranas itself")


def test_it_needs_none_of_the_libraries_that_it_looks_for():
    code = (
        "import sys; sys.modules |= dict.fromkeys('torch numpy pandas timm scipy h5py snakemake'.split())\n"
        "from libranas.cli import main; sys.exit(main(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "--force-reinstall torch" in done.stdout, done.stderr


def test_a_gpu_that_pytorch_does_not_see_has_a_way_out(said, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert "--force-reinstall torch" in line(said()[1], "GPU")
