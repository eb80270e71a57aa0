"""Runs of the real workflow in temporary folders.

Snakemake is started as a user would start it, from the checkout, with ``--directory`` pointing to a temporary
folder; results and Snakemake's own records (``.snakemake``) then lie there. One finished run of ``tiny.yaml`` is
shared by all tests; a test that changes anything works on a copy of it, with the times of files preserved, because
Snakemake decides by them what to rerun.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]
TINY = Path(__file__).with_name("tiny.yaml")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Run:
    """A folder in which the workflow runs.

    Attributes
    ----------
    folder : working directory of Snakemake
    product : checkout with Snakefile, rules, scripts and package
    """

    folder: Path
    product: Path = ROOT

    @property
    def results(self) -> Path:
        return self.folder / "results" / "tiny"

    def command(self, *targets: str, changes: dict | None = None, options: tuple = ()) -> list[str]:
        """The command line; `changes` to the configuration are merged over ``tiny.yaml``, section by section."""
        files = [str(TINY)]
        if changes:
            overlay = self.folder / "changes.yaml"
            overlay.write_text(yaml.safe_dump(changes))
            files.append(str(overlay))
        return [
            *(sys.executable, "-m", "snakemake", "--cores", "2", *targets, "--directory", str(self.folder)),
            *("--configfile", *files, *options),
        ]

    def snakemake(self, *targets: str, changes: dict | None = None, options: tuple = ()) -> subprocess.CompletedProcess:
        """Run Snakemake to its end; ``stdout`` holds both streams, as a terminal shows them."""
        return subprocess.run(
            self.command(*targets, changes=changes, options=options),
            cwd=self.product,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1800,  # a guard against hanging, not a measure: machines are busy
        )

    def succeed(self, *targets: str, changes: dict | None = None) -> str:
        done = self.snakemake(*targets, changes=changes)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def fail(self, *targets: str, changes: dict | None = None) -> str:
        """Output of a run that must fail the way a user can bear: no traceback, nothing half-written."""
        done = self.snakemake(*targets, changes=changes)
        assert done.returncode == 1, done.stdout
        assert "Traceback" not in done.stdout, done.stdout
        assert half_written(self.folder) == []
        return done.stdout

    def planned(self, *targets: str, changes: dict | None = None) -> dict[str, int]:
        """Rule to number of jobs that a dry run lists, without the target rule ``all``."""
        done = self.snakemake(*targets, changes=changes, options=("--dry-run", "--quiet", "rules"))
        assert done.returncode == 0, done.stdout
        return job_counts(done.stdout)

    def copy(self, folder: Path) -> "Run":
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return Run(folder, self.product)


def job_counts(output: str) -> dict[str, int]:
    """The table "Job stats" that Snakemake prints before it starts; empty if there is nothing to do."""
    if "Nothing to be done" in output:
        return {}
    table = re.search(r"Job stats:\njob +count\n[- ]+\n(.*?)\ntotal +(\d+)\n", output, re.DOTALL)
    counts = {name: int(count) for name, count in map(str.split, table[1].splitlines())}
    assert sum(counts.values()) == int(table[2])
    counts.pop("all", None)
    return counts


def half_written(folder: Path) -> list[str]:
    """Temporary files of atomic writes that were left behind."""
    return [str(p) for pattern in (".*.tmp*", ".*.new") for p in folder.glob(f"results/**/{pattern}")]


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Run:
    """The finished run that all tests share, in all processes; do not change anything in it."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # this worker's lies in that of all
    run, done = Run(folder / "finished"), folder / "finished.done"
    with FileLock(folder / "finished.lock"):
        if not done.exists():
            run.folder.mkdir(exist_ok=True)
            run.succeed()
            done.touch()
    return run


@pytest.fixture
def copied(finished, tmp_path) -> Run:
    """A copy of the finished run."""
    return finished.copy(tmp_path / "run")


@pytest.fixture
def fresh(tmp_path) -> Run:
    """A folder in which nothing has run."""
    return Run(tmp_path)
