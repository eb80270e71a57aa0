"""The workflow as a module of another one, in a folder that `libranas init` writes, and installed from a wheel."""

import os
import shutil
import subprocess
import sys
import venv

import pytest
import yaml
from conftest import ENVIRONMENT, ROOT, TINY, Run

from libranas.cli import main
from libranas.core.files import read_json

MODULE = """
module libranas:
    snakefile: {snakefile}
    config: config
"""
#: Another workflow: the module below a folder of its own, a changed rule, and a rule of its own.
OTHER = f"""{MODULE.format(snakefile=repr(str(ROOT / "Snakefile")))}    prefix: "nas"

use rule * from libranas as nas_*

use rule score from libranas as nas_score with:
    threads: 2

rule full_training:
    input: "nas/results/tiny/libra/choice.json"
    output: "chosen.json"
    shell: "cp {{input}} {{output}}"

onstart:
    libranas.onstart()

libranas.check_targets()
"""


def written(folder, text: str) -> tuple[str, str]:
    """Write a Snakefile; return the options that take it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Snakefile").write_text(text)
    return "--snakefile", str(folder / "Snakefile")


def test_another_workflow_uses_it_below_a_prefix_with_a_changed_rule(fresh):
    """Files of the user are not looked for below the prefix; a rule that the module leaves out may be the other's."""
    snakefile = written(fresh.folder, OTHER)
    (fresh.folder / "reference.yaml").touch()
    (fresh.folder / "table.csv").write_text("architecture,accuracy\n")
    changes = {"train": {"reference": "reference.yaml"}, "benchmark": {"method": "table", "table": "table.csv"}}
    output = fresh.succeed("nas_select", "full_training", "--dry-run", *snakefile, changes=changes)
    jobs = {job.split(":")[0]: job for job in output.split("rule ")}
    assert "threads: 2" in jobs["nas_score"] and "output: nas/results/tiny/scores/shards/" in jobs["nas_score"]
    assert "input: nas/results/tiny/data/manifest.json, table.csv\n" in jobs["nas_sample"]
    assert ", reference.yaml\n" in jobs["nas_select"]
    assert "input: nas/results/tiny/libra/choice.json\n" in jobs["full_training"]


def test_what_a_module_does_lies_below_its_prefix(fresh):
    fresh.succeed("nas_sample", *written(fresh.folder, OTHER))
    run = fresh.folder / "nas/results/tiny"
    assert read_json(run / "data/manifest.json")["splits"] and (run / "sample/archs.csv").exists()
    assert "nas_sample" in (run / "state/command.txt").read_text() and (run / "state/lock").exists()
    assert not (fresh.folder / "results").exists()


def test_a_folder_of_init_plans_what_the_checkout_plans(fresh, tmp_path):
    assert main(["init", str(tmp_path / "own")]) == 0
    own, snakefile = Run(tmp_path / "own"), ("--snakefile", str(tmp_path / "own/Snakefile"))
    assert own.planned(*snakefile) == fresh.planned()
    told = own.fail("full_training", *snakefile)
    assert "There is no full_training in this run" in told and (own.folder / "config/schema.yaml").exists()


@pytest.mark.cluster
def test_the_layout_of_snakedeploy_fetches_it_from_github(fresh):
    """GitHub is a repository on this disk, by git's `insteadOf`; Snakemake clones it and reads files at a tag."""
    copy = fresh.folder / "published"
    for name in ("rules", "scripts"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "config.yaml"):
        shutil.copy(ROOT / name, copy)
    git = ["git", "-C", str(copy), "-c", "user.name=test", "-c", "user.email=test"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "release"], ["tag", "v1"]):
        subprocess.run([*git, *command], check=True)
    source = 'github("nobody/libranas", path="Snakefile", tag="v1")'
    text = f'configfile: "config/config.yaml"\n{MODULE.format(snakefile=source)}\nuse rule * from libranas\n'
    written(fresh.folder / "workflow", text)
    (fresh.folder / "config").mkdir()
    shutil.copy(TINY, fresh.folder / "config/config.yaml")
    instead = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{copy}.insteadOf"}
    instead |= {
        "GIT_CONFIG_VALUE_0": "https://github.com/nobody/libranas",
        "XDG_CACHE_HOME": str(fresh.folder / "cache"),
    }
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "sample"]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = ENVIRONMENT | instead | {"PYTHONPATH": paths}
    done = subprocess.run(command, cwd=fresh.folder, env=environment, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    assert (fresh.results / "sample/archs.csv").exists()


@pytest.mark.cluster
def test_a_wheel_is_enough(tmp_path):
    """Built, installed into an empty environment, which has the libraries of this one; run outside of the checkout."""
    unpacked = shutil.ignore_patterns(".*", "results", "tests", "build", "dist", "vit*", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, tmp_path / "source", ignore=unpacked)
    build = [
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        "--outdir",
        str(tmp_path / "dist"),
        str(tmp_path / "source"),
    ]
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "PYTHONPATH"}
    subprocess.run(build, env=environment, check=True, stdout=subprocess.PIPE)
    venv.create(tmp_path / "env", symlinks=True)
    site = next((tmp_path / "env").glob("lib/python*/site-packages"))
    (site / "libraries.pth").write_text(f"{os.path.dirname(os.path.dirname(pytest.__file__))}\n")
    python = str(tmp_path / "env/bin/python")
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--force-reinstall", str(wheel)], env=environment, check=True)

    def run(*command: str, folder=tmp_path) -> str:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert f"workflow in {site}/libranas/workflow" in run(str(tmp_path / "env/bin/libranas"), "doctor")
    run(str(tmp_path / "env/bin/libranas"), "init", "own", "--preset", "published")
    config = tmp_path / "own/config.yaml"
    assert yaml.safe_load(config.read_text())["published"]["tables"] == "data/nas_bench_suite_zero"
    run(str(tmp_path / "env/bin/libranas"), "init", "digits")
    assert "report" in run(python, "-m", "snakemake", "--dry-run", "--quiet", "rules", folder=tmp_path / "digits")
    run(python, "-m", "snakemake", "--cores", "1", "sample", folder=tmp_path / "digits")
    assert (tmp_path / "digits/results/digits/sample/archs.csv").exists()
