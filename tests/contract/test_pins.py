"""Recipes of images and environments: linted, pinned, alike, and made from the one list of pins."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = ("cpu", "cuda")
sys.path.insert(0, str(ROOT / "envs"))

import pins  # noqa: E402


def instructions(role: str) -> list[tuple[str, str]]:
    """Instructions of a Containerfile with their arguments, continued lines joined."""
    text = (ROOT / "containers" / f"{role}.Containerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [tuple(re.sub(r" +", " ", line).split(" ", 1)) for line in lines]


def definition(role: str) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Header and sections of an Apptainer definition."""
    header, sections, section = {}, {}, None
    for line in (ROOT / "containers" / f"{role}.def").read_text().splitlines():
        if found := re.fullmatch(r"%(\w+)", line):
            section = sections.setdefault(found[1], [])
        elif section is not None and line.strip():
            section.append(line.strip())
        elif ": " in line and not line.startswith("#"):
            header.__setitem__(*line.split(": ", 1))
    return header, sections


def arguments(lines: list[str]) -> dict[str, str]:
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.parametrize("role", ROLES)
def test_containerfiles_pass_the_linter(role):
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert linter, "hadolint is missing: pip install -r requirements.lock"
    path = ROOT / "containers" / f"{role}.Containerfile"
    done = subprocess.run([linter, path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout


def test_the_linter_finds_faults(tmp_path):
    (tmp_path / "Containerfile").write_text("FROM debian:latest\nRUN cd /tmp && sudo ls\n")
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, tmp_path / "Containerfile"], stdout=subprocess.PIPE, text=True)
    assert done.returncode == 1 and "DL3007" in done.stdout


@pytest.mark.parametrize("role", ROLES)
def test_an_image_is_pinned_labelled_checked_and_not_of_root(role):
    found = instructions(role)
    given = dict(found)
    assert re.fullmatch(r"BASE=docker\.io/\S+:[\w.-]+@sha256:[0-9a-f]{64}", given["ARG"])
    assert "latest" not in given["ARG"]
    assert given["FROM"] == "${BASE}"
    assert given["USER"].split(":")[0] != "0"
    assert {"title", "description", "licenses"} <= set(re.findall(r"image\.(\w+)=", given["LABEL"]))
    runs = [argument for name, argument in found if name == "RUN"]
    assert runs == [f"sh containers/install.sh {role}", "python containers/check.py"]
    names = [name for name, _ in found]
    assert names.index("USER") < names.index("RUN", names.index("USER"))  # the check runs as that user


@pytest.mark.parametrize("role", ROLES)
def test_a_definition_says_what_the_containerfile_says(role):
    header, sections = definition(role)
    image = dict(instructions(role))
    given = arguments(sections["arguments"])
    assert header == {"Bootstrap": "{{ BOOTSTRAP }}", "From": "{{ BASE }}"}
    assert given == {"BOOTSTRAP": "docker", "BASE": image["ARG"].removeprefix("BASE=")}
    assert f"sh containers/install.sh {role}" in sections["post"]
    assert sections["test"] == ["/opt/libranas/bin/python /libranas/containers/check.py"]
    assert sections["runscript"] == ['exec snakemake --snakefile /libranas/Snakefile "$@"']
    labels = dict(line.split(" ", 1) for line in sections["labels"])
    assert labels == dict(re.findall(r'(\S+)="([^"]*)"', image["LABEL"]))
    assert sections["environment"][0].startswith("export PATH=/opt/libranas/bin:$PATH")


def test_both_kinds_of_image_hold_the_same_files():
    """What the build context keeps of the checkout is what the definitions list."""
    kept = {line[1:] for line in (ROOT / ".containerignore").read_text().splitlines() if line.startswith("!")}
    for role in ROLES:
        _, sections = definition(role)
        files = dict(line.split() for line in sections["files"])
        assert files == {name: f"/libranas/{name}" for name in kept}
    assert all((ROOT / name).exists() for name in kept)


def test_roles_differ_in_cuda_alone():
    cpu, cuda = (set(pins.requirements(role)) for role in ROLES)
    assert cpu - cuda == {f"--extra-index-url {pins.CPU_INDEX}"}
    assert {re.split("[-=]", line)[0] for line in cuda - cpu} == {"nvidia", "cuda", "triton"}
    lock = (ROOT / "requirements.lock").read_text().splitlines()
    assert cuda == {line for line in lock if line and not line.startswith("#")}


def test_no_pin_depends_on_a_patch_release_of_python():
    """Wheels are downloaded by one Python and installed by another of the same minor version."""
    assert not re.findall(r"python_full_version .. '\d+\.\d+\.\d+'", "\n".join(pins.requirements("cuda")))


@pytest.mark.parametrize("role", ROLES)
def test_conda_environments_are_those_of_the_pins(role):
    text = (ROOT / "envs" / f"{role}.yaml").read_text()
    assert text == pins.conda(role), "requirements.lock has changed: python envs/pins.py --write"
    environment = yaml.safe_load(text)
    assert environment["dependencies"][-1]["pip"] == pins.requirements(role)
    image = re.search(r"python:(3\.\d+)", (ROOT / "containers/cpu.Containerfile").read_text())
    assert environment["dependencies"][0] == f"python={image[1]}"
