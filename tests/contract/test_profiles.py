"""The profiles name rules that exist, agree about who needs a GPU, and explain every setting."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
RULES = [name for path in ROOT.glob("rules/*.smk") for name in re.findall(r"^ *rule (\w+):", path.read_text(), re.M)]
PROFILES = sorted(path.parent.name for path in ROOT.glob("profiles/*/profile.yaml"))
LOCAL = [
    name
    for path in ROOT.glob("rules/*.smk")
    for name, body in re.findall(r"^rule (\w+):\n((?:    .*\n|\n)+)", path.read_text(), re.M)
    if "    localrule: True\n" in body
]


def text(name: str) -> str:
    return (ROOT / "profiles" / name / "profile.yaml").read_text()


@pytest.mark.parametrize("name", PROFILES)
def test_resources_are_those_of_rules_that_become_jobs(name):
    named = yaml.safe_load(text(name)).get("set-resources", {})
    assert set(named) <= set(RULES) - set(LOCAL)


def test_the_same_rules_need_a_gpu_everywhere():
    """Those are the ones that take a device."""
    settings = {name: yaml.safe_load(text(name))["set-resources"] for name in ("slurm", "local")}
    needy = {name: {rule for rule, r in given.items() if r.get("gpu")} for name, given in settings.items()}
    assert needy["slurm"] == needy["local"]
    assert all(r["slurm_partition"] == "gpu" for r in settings["slurm"].values() if r.get("gpu"))


@pytest.mark.parametrize("name", PROFILES)
def test_every_setting_is_explained(name):
    lines = text(name).splitlines()
    keys = [i for i, line in enumerate(lines) if re.match(r"[a-z-]+:", line)]
    bare = [lines[i] for i in keys if not lines[i - 1].startswith("#")]
    assert bare == []


def test_partitions_and_account_are_written_once():
    settings, own = yaml.safe_load(text("slurm")), "\n".join(l for l in text("slurm").splitlines() if "&" not in l)
    site = settings["site"]
    assert settings["default-resources"]["slurm_partition"] == site["cpu"]
    assert settings["default-resources"]["slurm_account"] == site["account"]
    assert not re.search(r"slurm_(partition|account): (?!\*)", own)


def test_retries_belong_to_profiles():
    """In a rule they multiply, because every job on the cluster is a Snakemake of its own."""
    assert not [path for path in ROOT.glob("rules/*.smk") if re.search(r"^\s+retries:", path.read_text(), re.M)]
