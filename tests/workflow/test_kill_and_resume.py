"""``kill -9`` of the whole process tree in the middle of a stage, then the same command again."""

import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from conftest import Run, half_written, kill, session, signal_all
from safetensors.torch import load_file

from libranas import scores as store
from libranas.core.files import read_json
from libranas.training.checkpoints import Checkpoints


def lines(path: Path) -> int:
    """Complete records of a progress log."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def epochs(path: Path) -> int:
    """Epochs of the newest checkpoint of a training; files are replaced atomically, and old ones removed."""
    checkpoints = Checkpoints(path / "checkpoints")
    while any(checkpoints.folder.glob("step-*")):
        with suppress(ValueError, OSError):  # removed while it is looked at
            return len(checkpoints.load(checkpoints.paths()[0])["history"])
    return 0


def same_bytes(ours: Path, undisturbed: Path) -> bool:
    return ours.read_bytes() == undisturbed.read_bytes()


def same_scores(ours: Path, undisturbed: Path) -> bool:
    return store.content_sha256(store.read(ours)) == store.content_sha256(store.read(undisturbed))


def same_training(ours: Path, undisturbed: Path) -> bool:
    a, b = read_json(ours), read_json(undisturbed)
    for metrics in (a, b):
        metrics.pop("facts")  # the time, among others
    x, y = (load_file(path.with_name("model.safetensors")) for path in (ours, undisturbed))
    return a == b and x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


@dataclass(frozen=True)
class Stage:
    """A stage to kill: the result asked for, what to delete before, its progress, records of an undisturbed run."""

    target: str
    results: tuple[str, ...]
    progress: str
    count: Callable[[Path], int]
    total: int
    same: Callable[[Path, Path], bool]

    def forget(self, run: Run) -> None:
        for name in (*self.results, self.progress):
            path = run.results / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()


STAGES = {
    "score": Stage(
        "scores/scores.h5", ("scores", "state/score/0.jsonl"), "state/score/1.jsonl", lines, 46, same_scores
    ),
    "benchmark": Stage(
        "benchmark/train/1.csv", ("benchmark/train/1.csv",), "state/benchmark/train-1.jsonl", lines, 12, same_bytes
    ),
    "search": Stage(
        "search/evolution.csv", ("search/evolution.csv",), "state/search/evolution.jsonl", lines, 40, same_bytes
    ),
    "train": Stage(
        "train/winner/0/metrics.json", ("train/winner/0",), "state/train/winner-0", epochs, 6, same_training
    ),
}


@contextmanager
def started(run: Run, target: str, **options):
    """Snakemake at work; nothing of it survives this block."""
    process = run.start(target, **options)
    try:
        yield process
    finally:
        kill(process)


def freeze_in_the_middle(process, run: Run, stage: Stage, least: int) -> int:
    """Stop the tree once the stage has `least` records; how many they are then."""
    progress = run.results / stage.progress
    while stage.count(progress) < least:
        assert process.poll() is None, run.output
        time.sleep(0.002)
    signal_all(process.pid, signal.SIGSTOP)
    time.sleep(0.05)
    done = stage.count(progress)
    assert least <= done < stage.total, "the stage was over before it could be killed"
    assert not (run.results / stage.target).exists()
    return done


@pytest.mark.parametrize(("name", "forked"), [("train", False), *((name, True) for name in STAGES)])
def test_a_killed_stage_goes_on_where_it_was(finished, copied, name, forked):
    stage = STAGES[name]
    assert stage.count(finished.results / stage.progress) == stage.total
    stage.forget(copied)
    target = f"results/tiny/{stage.target}"
    with started(copied, target, forked=forked) as process:
        done = freeze_in_the_middle(process, copied, stage, least=2)
    progress = copied.results / stage.progress
    kept = progress.read_bytes() if stage.count is lines else b""

    copied.succeed(target, forked=forked)
    assert stage.same(copied.results / stage.target, finished.results / stage.target)
    # Nothing that was finished is done again: at most the record being written was lost.
    assert stage.count(progress) == stage.total
    if stage.count is lines:
        complete = kept[: kept.rfind(b"\n") + 1]
        assert complete.count(b"\n") == done and progress.read_bytes().startswith(complete)
    else:
        log = (copied.results / "logs/train/winner-0.log").read_text()
        assert re.search(r"epoch (\d+) of", log)[1] == str(done + 1)
    assert half_written(copied.folder) == []


def test_a_run_at_work_is_left_alone(finished, copied):
    """A second Snakemake is refused while the first lives, and work that a killed Snakemake left behind is found."""
    stage = replace(STAGES["score"], target="scores/shards/1.h5", results=("scores/shards/1.h5",))
    stage.forget(copied)
    target = f"results/tiny/{stage.target}"
    with started(copied, target) as process:
        freeze_in_the_middle(process, copied, stage, least=2)
        output = copied.fail(target)
        assert output.count("Another Snakemake is at work on results/tiny.") == 1
        os.kill(process.pid, signal.SIGKILL)  # Snakemake alone
        process.wait()
        assert session(process.pid)
        output = copied.fail(target)
        assert output.count("results/tiny/state/score/1.jsonl is being written by another process") == 1
    copied.succeed(target)
    assert stage.same(copied.results / stage.target, finished.results / stage.target)
