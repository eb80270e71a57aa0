"""The workflow through a real SLURM: the shipped profile, and everything that goes wrong on a cluster.

The scenarios run beside each other, because most of their time is waiting; each test looks at the outcome of one. Where
work has to be caught in the middle its script is frozen (SIGSTOP) once it has some records.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

import pytest
import slurm_on_loopback
import yaml
from conftest import ROOT, TINY, Run, half_written
from slurm_on_loopback import Slurm
from test_kill_and_resume import STAGES, Stage, same_bytes, same_scores, same_training

from libranas.core.files import read_json

pytestmark = pytest.mark.cluster
SCORE = replace(STAGES["score"], target="scores/shards/1.h5")
TRAIN = STAGES["train"]


@pytest.fixture(scope="module")
def slurm():
    if why := slurm_on_loopback.missing():
        if os.environ.get("LIBRANAS_SLURM") == "required":
            pytest.fail(f"no SLURM can be started: {why}")
        pytest.skip(f"NO SLURM, the cluster is not tested in this run: {why}")
    cluster = slurm_on_loopback.start()
    yield cluster
    slurm_on_loopback.stop(cluster)


def profile(folder: Path, resources: dict) -> Path:
    """The shipped profile, which looks at the queue more often; `resources` are merged into those of its rules."""
    settings = yaml.safe_load((ROOT / "profiles/slurm/profile.yaml").read_text())
    settings |= {"slurm-init-seconds-before-status-checks": 11, "latency-wait": 20}
    for rule, changes in resources.items():
        settings["set-resources"][rule] |= changes
    path = folder / "profile"
    path.mkdir(exist_ok=True)
    (path / "profile.yaml").write_text(yaml.safe_dump(settings))
    return path


@dataclass
class Driver:
    """Snakemake as a user starts it on the login node."""

    slurm: Slurm
    run: Run
    resources: dict = field(default_factory=dict)
    overlays: tuple[Path | str, ...] = ()
    stage: Stage = SCORE
    attempt: int = 0
    process: subprocess.Popen | None = None

    def start(self, *targets: str) -> None:
        self.attempt += 1
        command = [
            *(sys.executable, "-m", "snakemake", *targets, "--directory", self.run.folder),
            *("--configfile", TINY, *self.overlays, "--profile", profile(self.run.folder, self.resources)),
        ]
        with open(self.path, "wb") as file:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.slurm.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def path(self) -> Path:
        return self.run.folder / f"driver{self.attempt}.txt"

    @property
    def output(self) -> str:
        return self.path.read_text()

    def finish(self, patience: float = 900) -> None:
        assert self.process.wait(patience) == 0, f"{self.output}\n{self.slurm.logs()}"

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    @property
    def jobs(self) -> dict[int, dict]:
        """SLURM jobs of this Snakemake, oldest first."""
        name = re.search(r"SLURM run ID: (\S+)", self.output)
        return dict(sorted(self.slurm.jobs(name[1]).items())) if name else {}

    def frozen(self, least: int = 2, patience: float = 1200) -> tuple[int, int]:
        """Freeze the script of the job at work on the stage once it has `least` records: id of the job, process."""
        end = time.monotonic() + patience
        while self.stage.count(self.records) < least:
            assert self.process.poll() is None and time.monotonic() < end, f"{self.output}\n{self.slurm.logs()}"
            time.sleep(0.002)
        (job,) = (i for i, job in self.jobs.items() if job["state"] == "RUNNING")
        (pid,) = self.slurm.scripts(job)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.05)
        assert self.stage.count(self.records) < self.stage.total, "the stage was over before it could be frozen"
        return job, pid

    @property
    def records(self) -> Path:
        return self.run.results / self.stage.progress

    @property
    def logs(self) -> str:
        """Output of all SLURM jobs that failed; those of jobs that succeeded are deleted."""
        return "\n".join(p.read_text() for p in sorted(self.run.folder.glob(".snakemake/slurm_logs/**/*.log")))


@dataclass
class Outcome:
    driver: Driver
    jobs: dict[int, dict]
    kept: bytes = b""
    more: dict = field(default_factory=dict)


def anew(driver: Driver) -> None:
    """Ask for the results of the driver's stage, of which nothing is left."""
    driver.stage.forget(driver.run)
    driver.start(f"results/tiny/{driver.stage.target}")


def whole(driver: Driver) -> Outcome:
    """The tiny experiment from the images to the first training of the winner."""
    driver.start("results/tiny/train/winner/0/metrics.json")
    driver.finish()
    return Outcome(driver, driver.jobs, more={job: driver.slurm.detail(job) for job in driver.jobs})


def cancelled(driver: Driver) -> Outcome:
    anew(driver)
    job, _ = driver.frozen()
    kept = driver.records.read_bytes()
    driver.slurm.run("scancel", str(job))
    driver.finish()
    return Outcome(driver, driver.jobs, kept)


def requeued(driver: Driver) -> Outcome:
    anew(driver)
    job, _ = driver.frozen()
    kept = driver.records.read_bytes()
    driver.slurm.run("scontrol", "requeue", str(job))
    driver.finish()
    return Outcome(driver, driver.jobs, kept, driver.slurm.detail(job))


def out_of_memory(driver: Driver) -> Outcome:
    driver.resources["score"]["mem_mb"] = "400 * attempt"
    anew(driver)
    driver.finish()
    return Outcome(driver, driver.jobs, more={job: driver.slurm.detail(job) for job in driver.jobs})


def out_of_time(driver: Driver) -> Outcome:
    """The time limit is drawn near while a training is frozen. With SIGTERM comes SIGCONT, which wakes it."""
    driver.stage = TRAIN
    driver.resources = {"train": {"slurm_partition": "cpu", "gpu": 0}}
    anew(driver)
    job, _ = driver.frozen()
    epochs = driver.stage.count(driver.records)
    hours, minutes, _ = map(int, driver.slurm.detail(job)["RunTime"].split(":"))
    driver.slurm.run("scontrol", "update", f"JobId={job}", f"TimeLimit={60 * hours + minutes + 2}")
    driver.finish()
    return Outcome(driver, driver.jobs, more={"epochs": epochs})


def node_died(driver: Driver) -> Outcome:
    driver.resources["score"]["slurm_partition"] = "frail"
    anew(driver)
    job, _ = driver.frozen()
    kept = driver.records.read_bytes()
    node = driver.slurm.jobs()[job]["node"]
    driver.slurm.kill_node(node, job)
    driver.finish()
    return Outcome(driver, driver.jobs, kept, driver.slurm.detail(job) | {"first": node})


def driver_killed(driver: Driver) -> Outcome:
    anew(driver)
    job, _ = driver.frozen()
    kept = driver.records.read_bytes()
    driver.kill()
    driver.start(f"results/tiny/{driver.stage.target}")
    driver.finish()
    return Outcome(driver, driver.jobs, kept, {"orphan": driver.slurm.detail(job)})


FULL = {"recipe": "smoke", "data": "digits", "nodes": 2, "threads": 1, "options": ["--micro-batch", 16]}
#: A GPU on each node is asked for and given; PyTorch finds none behind it and takes the CPU.
ACROSS = {"device": "auto", "full_training": FULL}


def across_nodes(driver: Driver) -> Outcome:
    """torchrun on two nodes, with gloo: the winner's large training, which here has two epochs."""
    driver.resources = {"full_training": {"slurm_partition": "cpu", "mem_mb": 4000}}
    (changes := driver.run.folder / "changes.yaml").write_text(yaml.safe_dump(ACROSS))
    driver.overlays = (changes, "--rerun-triggers", "mtime")  # the device is no reason to do the rest again
    driver.start("full_training")
    driver.finish()
    (job,) = driver.jobs
    return Outcome(driver, driver.jobs, more=driver.slurm.detail(job))


SCENARIOS = [whole, across_nodes, cancelled, requeued, out_of_time, out_of_memory, driver_killed, node_died]


@pytest.fixture(scope="module")
def outcome(slurm, finished, tmp_path_factory) -> Callable[[Callable], Outcome]:
    """What came of a scenario; all are started when the first is asked for."""
    pool = ThreadPoolExecutor(4)
    running: dict[Callable, tuple[Driver, Future]] = {}
    for scenario in SCENARIOS:
        folder = tmp_path_factory.mktemp(scenario.__name__)
        if scenario is whole:
            driver = Driver(slurm, Run(folder))
        else:  # a frozen job would keep a GPU from the whole run
            driver = Driver(slurm, finished.copy(folder), {"score": {"slurm_partition": "cpu", "gpu": 0}})
        running[scenario] = driver, pool.submit(scenario, driver)
    yield lambda scenario: running[scenario][1].result()
    pool.shutdown(wait=False, cancel_futures=True)
    for driver, future in running.values():
        if future.running():
            driver.kill()


def resumed(outcome: Outcome, finished: Run) -> None:
    """The shard is that of an undisturbed run, and nothing that was done is done again."""
    run, records = outcome.driver.run, outcome.driver.records.read_bytes()
    assert SCORE.same(run.results / SCORE.target, finished.results / SCORE.target)
    complete = outcome.kept[: outcome.kept.rfind(b"\n") + 1]
    assert complete.count(b"\n") >= 2 and records.startswith(complete)
    assert SCORE.count(outcome.driver.records) == SCORE.total
    assert half_written(run.folder) == []


def states(outcome: Outcome) -> list[str]:
    return [job["state"] for job in outcome.jobs.values()]


def test_the_tiny_experiment_gives_the_same_results(outcome, finished):
    """Through SLURM, with the shipped profile, as on this machine without it."""
    results, local = outcome(whole).driver.run.results, finished.results
    assert set(states(outcome(whole))) == {"COMPLETED"}
    assert same_scores(results / "scores/scores.h5", local / "scores/scores.h5")
    for name in ("benchmark/train.csv", "libra/methods.csv", "search/evolution.csv", "search/random.csv"):
        assert same_bytes(results / name, local / name), name
    assert same_training(results / "train/winner/0/metrics.json", local / "train/winner/0/metrics.json")


def test_jobs_at_a_time_have_gpus_of_their_own(outcome):
    given = {}
    for log in outcome(whole).driver.run.results.glob("logs/**/*.log"):
        if found := re.search(r"GPU (\S+), of SLURM job (\d+)", log.read_text()):
            given[int(found[2])] = found[1]
    gpu_jobs = {i: job for i, job in outcome(whole).more.items() if job["Partition"] == "gpu"}
    assert given.keys() == gpu_jobs.keys()
    assert set(given.values()) == {"0", "1"}
    at_a_time = [
        (a, b)
        for a, b in combinations(given, 2)
        if gpu_jobs[a]["StartTime"] < gpu_jobs[b]["EndTime"] and gpu_jobs[b]["StartTime"] < gpu_jobs[a]["EndTime"]
    ]
    assert at_a_time
    assert all(given[a] != given[b] for a, b in at_a_time)


def test_a_cancelled_job_is_submitted_again_and_goes_on(outcome, finished):
    assert states(outcome(cancelled)) == ["CANCELLED", "COMPLETED"]
    resumed(outcome(cancelled), finished)


def test_a_requeued_job_goes_on_under_its_number(outcome, finished):
    assert states(outcome(requeued)) == ["COMPLETED"]
    assert outcome(requeued).more["Restarts"] == "1"
    resumed(outcome(requeued), finished)


def test_a_job_out_of_memory_gets_more(outcome, finished):
    assert states(outcome(out_of_memory))[0] in ("FAILED", "OUT_OF_MEMORY")
    assert states(outcome(out_of_memory))[-1] == "COMPLETED"
    memory = [detail["MinMemoryNode"] for detail in outcome(out_of_memory).more.values()]
    assert memory == ["400M", "800M", "1200M", "1600M"][: len(memory)]
    assert SCORE.same(outcome(out_of_memory).driver.run.results / SCORE.target, finished.results / SCORE.target)


def test_before_the_time_limit_a_training_writes_a_checkpoint_and_ends(outcome, finished):
    driver, epochs = outcome(out_of_time).driver, outcome(out_of_time).more["epochs"]
    assert states(outcome(out_of_time)) == ["FAILED", "COMPLETED"]
    (updates,) = re.findall(r"Stopped by SIGTERM, after update (\d+) of 72\.\n  -> Progress is kept", driver.logs)
    assert int(updates) >= 12 * epochs
    assert f"Going on after update {updates} of 72." in (driver.run.results / "logs/train/winner-0.log").read_text()
    assert TRAIN.same(driver.run.results / TRAIN.target, finished.results / TRAIN.target)
    assert half_written(driver.run.folder) == []


def test_a_job_of_a_dead_node_goes_on_at_another(outcome, finished):
    assert states(outcome(node_died)) == ["COMPLETED"]
    assert outcome(node_died).more["Restarts"] == "1"
    assert outcome(node_died).more["NodeList"] != outcome(node_died).more["first"]
    resumed(outcome(node_died), finished)


def test_a_training_across_nodes_is_that_of_one_process(outcome, finished, tmp_path):
    job, results = outcome(across_nodes).more, outcome(across_nodes).driver.run.results
    assert job["NumNodes"] == "2" and job["NodeList"] == "n[1-2]" and job["TresPerNode"].endswith("gpu:1")
    across = read_json(results / "full_training/result.json")
    assert across["processes"] == 2
    assert (results / "full_training/export/model.safetensors").exists()
    arguments = ["--recipe", "smoke", "--model", finished.results / "export/winner", "--data", "digits"]
    arguments += ["--micro-batch", "16", "--seed", "3", "--device", "cpu", "--output", tmp_path]
    command = [sys.executable, "-m", "libranas", "train", *arguments]
    subprocess.run(command, check=True, env=outcome(across_nodes).driver.slurm.environment, cwd=ROOT)
    alone = read_json(tmp_path / "result.json")
    assert alone["processes"] == 1
    losses = [[epoch["loss"] for epoch in result["history"]] for result in (across, alone)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_killed_snakemake_leaves_no_job_behind(outcome, finished):
    """Started again it ends the jobs of the killed one, which would write the same files."""
    assert outcome(driver_killed).more["orphan"]["JobState"] == "CANCELLED"
    assert "1 SLURM jobs of a Snakemake that was killed are cancelled" in outcome(driver_killed).driver.output
    assert states(outcome(driver_killed)) == ["COMPLETED"]
    assert not (outcome(driver_killed).driver.run.results / "state/slurm.json").exists()
    resumed(outcome(driver_killed), finished)
