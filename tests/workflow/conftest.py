"""Runs of the real workflow in temporary folders.

Snakemake is started as a user would start it, from the checkout, with ``--directory`` pointing to a temporary
folder; results and Snakemake's own records (``.snakemake``) then lie there. One finished run of ``tiny.yaml`` is
shared by all tests. Its processes, and most others, are forks (`fork_server`), which need not import anything; new
processes run a training in test_kill_and_resume.py, and everything in the tests marked ``cluster``. A test that changes
anything works on a copy of the finished run, with the times of files preserved, because Snakemake decides by
them what to rerun.
"""

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import fork_server
import pytest
import yaml
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]
TINY = Path(__file__).with_name("tiny.yaml")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
#: A guided search over two rounds, its result, and its jobs.
GUIDED = {"method": "guided", "labels": 13, "round": 3, "population": 6, "long": 3}
HISTORY = "results/tiny/search/guided.csv"
ROUNDS = {"guided_propose": 2, "guided_train": 4, "guided_finalists": 1, "guided_long": 2, "guided": 1}
PATIENCE = 1800  # seconds; a guard against hanging, not a measure: machines are busy


@functools.cache
def server(path: str) -> bytes:
    """The address of this test process's server of forks that finds packages in `path`, a value of PYTHONPATH."""
    listener = fork_server.listen()
    command = [sys.executable, fork_server.__file__, str(listener.fileno())]
    subprocess.Popen(command, cwd=ROOT, env={**ENVIRONMENT, "PYTHONPATH": path}, pass_fds=[listener.fileno()])
    return listener.getsockname()


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

    @property
    def terminal(self) -> Path:
        """Where both streams of Snakemake go."""
        return self.folder / "output.txt"

    @property
    def output(self) -> str:
        """Both streams of the Snakemake that was started last, as a terminal shows them."""
        return self.terminal.read_text()

    def start(self, *targets: str, changes: dict | None = None, configfiles: tuple = (TINY,), forked: bool = True):
        """Start Snakemake; `changes` to the configuration are merged over ``tiny.yaml``, section by section."""
        files = [str(file) for file in configfiles]
        if changes:
            overlay = self.folder / "changes.yaml"
            overlay.write_text(yaml.safe_dump(changes))
            files.append(str(overlay))
        arguments = ["--cores", "2", *targets, "--directory", str(self.folder), "--configfile", *files]
        self.terminal.unlink(missing_ok=True)  # one that is still at work keeps its own
        with open(self.terminal, "wb") as out, open(os.devnull) as null:
            if forked:
                address = server(ENVIRONMENT.get("PYTHONPATH", ""))
                streams = [null.fileno(), out.fileno(), out.fileno()]
                return fork_server.Fork(address, ["snakemake", *arguments], str(self.product), ENVIRONMENT, streams)
            command, streams = [sys.executable, "-m", "snakemake"], {"stdin": null, "stdout": out, "stderr": out}
            return subprocess.Popen(
                [*command, *arguments], cwd=self.product, env=ENVIRONMENT, start_new_session=True, **streams
            )

    def snakemake(self, *targets: str, **options) -> int:
        """Run Snakemake to its end and return its exit code."""
        process = self.start(*targets, **options)
        try:
            return process.wait(PATIENCE)
        finally:
            kill(process)

    def succeed(self, *targets: str, **options) -> str:
        assert self.snakemake(*targets, **options) == 0, self.output
        return self.output

    def fail(self, *targets: str, changes: dict | None = None) -> str:
        """Output of a run that must fail the way a user can bear: no traceback, nothing half-written."""
        assert self.snakemake(*targets, changes=changes) == 1, self.output
        assert "Traceback" not in self.output, self.output
        assert half_written(self.folder) == []
        return self.output

    def planned(self, *targets: str, **options) -> dict[str, int]:
        """Rule to number of jobs that a dry run lists, without the target rule ``all``."""
        return job_counts(self.succeed(*targets, "--dry-run", "--quiet", "rules", **options))

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


def session(leader: int) -> list[int]:
    """Living processes of the session that `leader` leads, itself first."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            state, _, _, sid = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:4]
            if int(sid) == leader and state != "Z":
                found.append(int(entry.name))
    return sorted(found, key=lambda pid: pid != leader)


def signal_all(leader: int, number: int) -> None:
    for pid in session(leader):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def kill(process) -> None:
    """``kill -9`` of the whole tree; returns when all of it is gone."""
    while session(process.pid):
        signal_all(process.pid, signal.SIGKILL)
        time.sleep(0.01)
    process.wait()


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Run:
    """The finished run that all tests share, in all processes; do not change anything in it."""
    return once(tmp_path_factory, "finished", lambda run: run.succeed())


def once(tmp_path_factory, name: str, make) -> Run:
    """A run that all test processes share: ``make(run)`` fills its folder, in the first that asks."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # this worker's lies in that of all
    run, done = Run(folder / name), folder / f"{name}.done"
    with FileLock(folder / f"{name}.lock"):
        if not done.exists():
            run.folder.mkdir(exist_ok=True)
            make(run)
            done.touch()
    return run


@pytest.fixture(scope="session")
def searched(finished, tmp_path_factory) -> Run:
    """A finished guided search; do not change anything in it."""

    def make(run: Run) -> None:
        finished.copy(run.folder)
        assert run.planned(HISTORY, changes={"search": GUIDED}) == ROUNDS
        run.succeed(HISTORY, changes={"search": GUIDED})

    return once(tmp_path_factory, "searched", make)


@pytest.fixture(scope="session")
def guided(searched, tmp_path_factory) -> Run:
    """The finished run with this search; do not change anything in it."""
    return once(tmp_path_factory, "guided", lambda run: searched.copy(run.folder).succeed(changes={"search": GUIDED}))


@pytest.fixture
def copied(finished, tmp_path) -> Run:
    """A copy of the finished run."""
    return finished.copy(tmp_path / "run")


@pytest.fixture
def fresh(tmp_path) -> Run:
    """A folder in which nothing has run."""
    return Run(tmp_path)
