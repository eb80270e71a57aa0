"""Final training goes on after any kind of end, to the same losses and weights; and with any number of processes."""

import functools
import json
import logging
import os
import random
import shutil
import signal
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_runs import RANDOM, STOPPED, Processes, equal, images, one_thread, steps, training, weights  # noqa: F401

from libranas.core.errors import LibranasError
from libranas.core.files import read_json
from libranas.core.progress import Stopped
from libranas.training.checkpoints import Checkpoints
from libranas.training.recipe import make_recipe
from libranas.training.run_state import RunState

#: Kills of the test with SIGKILL; LIBRANAS_KILLS=20 is the long version.
KILLS = int(os.environ.get("LIBRANAS_KILLS", 4))
RECIPE = make_recipe({**RANDOM, "epochs": 6})


def steady(path) -> list[dict]:
    """Lines of the metrics without time and memory."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("images_per_second", "peak_bytes")} for line in lines]


def outcome(folder):
    """What must not depend on how often a run was interrupted."""
    return read_json(folder / "history.json"), steady(folder / "metrics.jsonl"), load_file(folder / "final.safetensors")


def assert_same(ours, undisturbed):
    assert ours[0] == undisturbed[0]
    assert ours[1] == undisturbed[1]
    assert equal(ours[2], undisturbed[2])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Outcome and seconds of a run by number of processes."""
    found = {}

    def run(size):
        if size not in found:
            folder, begin = tmp_path_factory.mktemp("undisturbed"), time.monotonic()
            assert Processes(folder, size, RECIPE).wait() == [0] * size
            found[size] = outcome(folder), time.monotonic() - begin
        return found[size]

    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder, history and weights of a run in this process that nothing interrupted, by number of epochs."""

    @functools.cache
    def run(epochs=6):
        folder = tmp_path_factory.mktemp("whole")
        trained = training(folder, replace(RECIPE, epochs=epochs))
        return folder, trained.fit(), weights(trained)

    return run


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """Puts a run that ended after two epochs of its recipe into a folder, as a kill would have left it."""

    @functools.cache
    def original(**how):
        def stop(record):
            if record["epoch"] + 1 == 2:
                raise KeyboardInterrupt

        folder = tmp_path_factory.mktemp("interrupted")
        with pytest.raises(KeyboardInterrupt):
            training(folder, RECIPE, **how).fit(stop)
        return folder

    return lambda folder, **how: shutil.copytree(original(**how), folder, dirs_exist_ok=True)


# -- kills ---------------------------------------------------------------------------------------------------


@pytest.mark.cluster
@pytest.mark.parametrize("size", [1, 2])
def test_killed_at_random_moments(undisturbed, tmp_path, size):
    expected, seconds = undisturbed(size)
    rng, kills, run = random.Random(size), 0, 0
    while kills < KILLS:
        folder = tmp_path / str(run)
        run += 1
        while True:
            processes = Processes(folder, size, RECIPE, checkpoint_steps=3, workers=run % 2)
            codes = processes.wait(rng.uniform(0, seconds) / size if kills < KILLS else 900)
            if None not in codes:
                break
            processes.kill()
            kills += -signal.SIGKILL in processes.wait()
        assert codes == [0] * size
        assert_same(outcome(folder), expected)


@pytest.mark.parametrize(
    ("number", "size"),
    [
        (signal.SIGTERM, 1),
        pytest.param(signal.SIGTERM, 2, marks=pytest.mark.cluster),
        pytest.param(signal.SIGUSR1, 2, marks=pytest.mark.cluster),
    ],
)
def test_told_to_stop_it_writes_a_checkpoint_of_this_moment(undisturbed, tmp_path, number, size):
    expected, seconds = undisturbed(size)
    codes, stops, delay, folder = [], 0, seconds / 2 / size, tmp_path / "0"
    for _ in range(20):
        processes = Processes(folder, size, RECIPE, checkpoint_seconds=1e9, workers=1)
        codes = processes.wait(delay) if not stops else processes.wait()
        if None in codes:
            processes.signal(number)
            codes = processes.wait()
            assert codes in ([STOPPED] * size, [0] * size, [-number] * size)
            stops += codes == [STOPPED] * size
        if stops and codes == [0] * size:
            break
        if codes == [0] * size:  # it was over before the signal: machines are busy at one time and not at another
            delay, folder = delay / 2, folder.with_name(f"{folder.name}0")
        elif codes == [-number] * size:  # it did not listen yet
            delay *= 1.5
    assert stops and codes == [0] * size
    assert_same(outcome(folder), expected)


def test_a_stop_in_the_middle_of_an_epoch_loses_no_update(whole, tmp_path):
    """The signal arrives while the third update is at work."""

    def run(stop_at=None):
        trained = training(tmp_path, RECIPE)
        update = trained._update

        def counted(batches):
            update(batches)
            done.append(trained.state.step)
            if trained.state.step == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)

        trained._update = counted
        return trained

    done = []
    with pytest.raises(Stopped, match="Stopped by SIGTERM, after update 3 of 30"):
        run(3).fit()
    continued, (_, history, expected) = run(), whole()
    assert continued.fit() == history and equal(weights(continued), expected)
    assert done == list(range(1, 31))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("save", range(1, 13))
def test_killed_right_before_or_after_any_checkpoint(whole, tmp_path, monkeypatch, save):
    """Also between the line of an epoch, its two checkpoints, and the evaluation between those."""
    folder, history, expected = whole(3)
    recipe = replace(RECIPE, epochs=3)
    real, calls = Checkpoints.save, [0]

    def killed(self, step, state):
        calls[0] += 1
        if calls[0] == (save + 1) // 2 and save % 2:
            raise KeyboardInterrupt
        real(self, step, state)
        if calls[0] == save // 2 and save % 2 == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        training(tmp_path, recipe).fit()
    monkeypatch.setattr(Checkpoints, "save", real)
    again = training(tmp_path, recipe)
    assert again.fit() == history and equal(weights(again), expected)
    assert steady(tmp_path / "metrics.jsonl") == steady(folder / "metrics.jsonl")


# -- checkpoints ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["cut", "byte", "empty"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(whole, interrupted, tmp_path, damage, caplog):
    folder, history, expected = whole()
    interrupted(tmp_path)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    path = checkpoints.paths()[0]
    _, before = steps(checkpoints)
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    path.write_bytes({"cut": content[:middle], "byte": flipped, "empty": b""}[damage])
    with caplog.at_level(logging.INFO):
        continued = training(tmp_path, RECIPE)
        assert continued.fit() == history
    assert f"{path} cannot be read" in caplog.text and "Falling back to the one before" in caplog.text
    assert f"Going on after update {before} of 30" in caplog.text
    assert equal(weights(continued), expected)
    assert steady(tmp_path / "metrics.jsonl") == steady(folder / "metrics.jsonl")


def test_without_any_good_checkpoint_it_is_an_error(interrupted, tmp_path):
    interrupted(tmp_path)
    for path in (tmp_path / "checkpoints").glob("*.pt"):
        path.write_bytes(b"no checkpoint")
    with pytest.raises(LibranasError, match=r"No checkpoint can be read: .*SHA-256 differs"):
        training(tmp_path, RECIPE).fit()


def test_a_checkpoint_can_run_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "evil"),)

    checkpoints = Checkpoints(tmp_path)
    path = checkpoints.save(1, {"step": Evil()})
    with pytest.raises(ValueError, match="Weights only load failed"):
        checkpoints.load(path)
    assert not (tmp_path / "evil").exists()


def test_old_checkpoints_are_removed(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    (tmp_path / ".new.123.tmp.pt").touch()  # left behind by a kill
    for step in range(5):
        path = checkpoints.save(step, {"step": step})
    assert steps(checkpoints) == [4, 3] and len(list(tmp_path.iterdir())) == 2
    assert checkpoints.newest() == (path, {"step": 4})


@pytest.mark.parametrize("call", range(5))
def test_killed_within_the_second_checkpoint_of_a_step(tmp_path, monkeypatch, call):
    """Before any change of the folder; it is the only step there is."""
    checkpoints, calls = Checkpoints(tmp_path), [0]
    checkpoints.save(5, {"history": 0})

    def killing(change):
        def killed(*arguments, **how):
            if calls[0] == call:
                raise KeyboardInterrupt
            calls[0] += 1
            return change(*arguments, **how)

        return killed

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", killing(os.replace))
        patched.setattr(torch, "save", killing(torch.save))
        for name in ("rename", "unlink"):
            patched.setattr(Path, name, killing(getattr(Path, name)))
        with suppress(KeyboardInterrupt):
            checkpoints.save(5, {"history": 1})
    found = Checkpoints(tmp_path).newest()[1]["history"]
    assert found in {0, calls[0] >= 4}  # the first until written, moved, cleaned up and renamed; then either
    checkpoints.save(5, {"history": 1})
    assert [path.name for path in tmp_path.iterdir()] == [checkpoints.newest()[0].name]


def test_a_finished_run_is_not_done_again(tmp_path):
    history = training(tmp_path, RECIPE).fit()
    again, calls = training(tmp_path, RECIPE), []
    assert again.fit(calls.append) == history and not calls


# -- changes -------------------------------------------------------------------------------------------------


def test_a_changed_number_of_epochs_is_an_error_unless_accepted(interrupted, tmp_path):
    interrupted(tmp_path)
    longer = make_recipe({**RANDOM, "epochs": 8})
    with pytest.raises(LibranasError, match="of another run: epochs was 6, is 8"):
        training(tmp_path, longer).fit()
    assert len(training(tmp_path, longer, accept=["epochs"]).fit()) == 8


def test_every_other_change_is_named(interrupted, tmp_path):
    interrupted(tmp_path)
    changed = make_recipe({**RANDOM, "epochs": 6, "lr": 1e-3})
    with pytest.raises(LibranasError) as error:
        training(tmp_path, changed, data=images(81), micro_batch=8, seed=4, key="other").fit()
    for name in (
        "lr was 0.003, is 0.001",
        "seed was 3, is 4",
        "micro_batches was 1, is 2",
        "images was",
        "network and",
    ):
        assert name in str(error.value)
    interrupted(tmp_path / "anew")
    anew = training(tmp_path / "anew", changed, restart_on_change=True)
    whole = training(tmp_path / "whole", changed)
    assert anew.fit() == whole.fit() and equal(weights(anew), weights(whole))


def test_what_is_accepted_takes_effect(whole, interrupted, tmp_path):
    changes = {"lr": 1e-3, "weight_decay": 0.5, "betas": (0.5, 0.9), "eps": 1e-3, "precision": "bfloat16"}
    _, history, unchanged = whole()
    for name, value in changes.items():
        run = training(interrupted(tmp_path / name), replace(RECIPE, **{name: value}), accept=[name])
        if name == "precision":
            assert run.fit()
        else:
            assert run.fit()[:2] == history[:2] and not equal(weights(run), unchanged)
    groups = run.updater.optimizer.param_groups
    interrupted(tmp_path / "none")
    with pytest.raises(LibranasError, match="has other groups of parameters"):
        training(tmp_path / "none", replace(RECIPE, weight_decay=0.0), accept=["weight_decay"]).fit()
    assert len(groups) == 2


@pytest.mark.parametrize("name", ["batch_size", "repeats", "images", "optimizer", "layer_decay", "seed", "epoch"])
def test_what_no_checkpoint_is_of_use_with_cannot_be_accepted(tmp_path, name):
    with pytest.raises(LibranasError, match=f"A changed {name} cannot be accepted(.|\n)*What can be accepted: epochs"):
        training(tmp_path, RECIPE, accept=[name])


def test_the_bar_does_not_count_what_was_done_before(interrupted, tmp_path, monkeypatch):
    interrupted(tmp_path)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    run, seen = training(tmp_path, RECIPE), []
    run.fit(lambda record: seen.append(dict(run.metrics.bar.format_dict)))
    assert [at["initial"] for at in seen] == [160] * 4 and [at["n"] for at in seen] == [240, 320, 400, 480]


def test_two_runs_in_one_folder(tmp_path):
    def second(record):
        with pytest.raises(LibranasError, match="is being written by another process"):
            training(tmp_path, RECIPE).fit()

    training(tmp_path, RECIPE).fit(second)


# -- processes -----------------------------------------------------------------------------------------------


def test_two_processes_give_the_losses_of_one(tmp_path):
    """With everything random: what an image looks like, mixing and stochastic depth go by the micro-batch."""
    one, two = tmp_path / "one", tmp_path / "two"
    assert Processes(one, 1, RECIPE, micro_batch=8).wait() == [0]
    assert Processes(two, 2, RECIPE, micro_batch=8).wait() == [0, 0]
    for a, b in zip(steady(one / "metrics.jsonl"), steady(two / "metrics.jsonl"), strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert a[key] == pytest.approx(b[key], abs=1e-5), key
    a, b = load_file(one / "final.safetensors"), load_file(two / "final.safetensors")
    assert max((a[k] - b[k]).abs().max() for k in a) < 1e-4


def test_the_earliest_bad_update_of_all_processes_is_told(tmp_path, monkeypatch, capfd):
    add = RunState.add

    def added(self, loss):
        add(self, loss * (float("nan") if self.step >= {"0": 7, "1": 5}[os.environ["RANK"]] else 1.0))

    monkeypatch.setattr(RunState, "add", added)
    assert Processes(tmp_path, 2, RECIPE, log_steps=100).wait() == [1, 1]
    assert "not finite at update 6 of 30" in capfd.readouterr().err


def test_a_run_goes_on_with_another_number_of_processes(interrupted, tmp_path):
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    assert Processes(whole, 1, RECIPE, micro_batch=8).wait() == [0]
    interrupted(moved, micro_batch=8, checkpoint_steps=3)
    assert Processes(moved, 2, RECIPE, micro_batch=8).wait() == [0, 0]
    for a, b in zip(read_json(whole / "history.json"), read_json(moved / "history.json"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)


def test_accumulated_micro_batches_are_one_batch(tmp_path):
    """Without what depends on the neighbours in a micro-batch, the losses are those of whole batches."""
    plain = make_recipe({"epochs": 3, "batch_size": 16, "lr": 3e-3, "hflip": True, "crop_padding": 2})
    histories = [training(tmp_path / str(size), plain, micro_batch=size).fit() for size in (16, 4)]
    for a, b in zip(*histories, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)


def test_reading_processes_change_nothing(tmp_path):
    runs = [training(tmp_path / str(workers), RECIPE, workers=workers) for workers in (0, 2)]
    a, b = (run.fit() for run in runs)
    assert a == b and equal(*map(weights, runs))
