"""GPUs handed out by locks, jobs of a killed run cancelled, and work that ends when a signal asks for it."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from io import StringIO
from types import SimpleNamespace

import pytest

from libranas.core import progress as core_progress
from libranas.core.errors import LibranasError
from libranas.core.progress import Stopped, may_stop, progress, stop_when_asked
from libranas.runs import cluster

HOLD = """
import sys, pathlib
from libranas.runs.cluster import take_gpus
print(",".join(take_gpus(int(sys.argv[2]), pathlib.Path(sys.argv[1]), wait=0.02)), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hold(tmp_path):
    """Start processes that take GPUs and keep them until they are killed."""
    started = []

    def begin(count=1, visible="7,8", job=None):
        environment = {k: v for k, v in os.environ.items() if k not in ("SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES")}
        environment |= {"CUDA_VISIBLE_DEVICES": visible} | ({"SLURM_JOB_ID": job} if job else {})
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path / "locks"), str(count)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def gpus(process) -> str:
    return process.stdout.readline().strip()


def test_no_gpu_is_given_twice_and_a_dead_holder_frees_its_own(hold):
    first, second = hold(), hold()
    assert {gpus(first), gpus(second)} == {"7", "8"}
    third = hold()
    first.kill()
    first.wait()
    freed = gpus(third)
    assert freed in ("7", "8")
    fourth = hold(count=2)  # waits for both: it must not keep one from others
    third.kill()
    third.wait()
    fifth = hold()
    assert gpus(fifth) == freed
    fifth.kill()
    second.kill()
    assert gpus(fourth) == "7,8"


def test_a_job_of_slurm_takes_what_it_was_given(hold):
    """Every job's first GPU may be number 0: jobs do not look at each other's locks, workers in one job do."""
    assert [gpus(hold(visible="0", job=job)) for job in ("11", "12")] == ["0", "0"]
    assert {gpus(hold(visible="0,1", job="13")) for _ in range(2)} == {"0", "1"}


def test_a_gpu_that_is_named_twice_takes_two_jobs(hold):
    three = [hold(visible="7,7,8") for _ in range(3)]
    assert sorted(map(gpus, three)) == ["7", "7", "8"]
    fourth = hold(count=2, visible="7,7,8")
    for process in three:
        process.kill()
        process.wait()
    assert gpus(fourth) == "7,8"  # two devices, not one twice
    fourth.kill()
    fourth.wait()
    assert [gpus(hold(visible="8,7,8,7")) for _ in range(3)] == ["8", "7", "8"]  # an idle one first


def test_a_job_without_a_gpu_of_its_own_names_each_once(monkeypatch, tmp_path):
    """CUDA shows no GPU where one is named twice."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0,1")
    assert cluster.take_gpus(0, tmp_path) == []
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1,0"


@pytest.mark.parametrize("visible", ["0", "0,0"])
def test_more_gpus_than_there_are_is_an_error(monkeypatch, tmp_path, visible):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(LibranasError, match="asks for 2 GPUs and may use 1"):
        cluster.take_gpus(2, tmp_path)


@pytest.mark.parametrize("nothing", ["", "-1", "NoDevFiles"])
def test_no_gpu_is_no_error(monkeypatch, tmp_path, nothing):
    """`device: auto` then means the CPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", nothing)
    assert cluster.take_gpus(1, tmp_path) == []


def test_gpus_are_those_of_nvidia_smi(tmp_path, monkeypatch):
    (tool := tmp_path / "nvidia-smi").write_text("#!/bin/sh\nprintf '0\\n1\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert cluster.visible_gpus() == ["0", "1"]


def test_a_lock_is_open_to_others_and_outlives_its_holder_in_what_it_started(tmp_path):
    """The umask hides the file from nobody; killed alone, a process leaves its GPU to its child."""
    code = (
        "import os, sys, pathlib; os.umask(0o077)\n"
        "from libranas.runs.cluster import run_to_its_end, take_gpus\n"
        "take_gpus(1, pathlib.Path(sys.argv[1]))\n"
        "run_to_its_end(['sh', '-c', 'echo $$; exec sleep 600'])"
    )
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "7"}
    environment.pop("SLURM_JOB_ID", None)
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        child = int(process.stdout.readline())
        process.kill()
    assert (tmp_path / "machine-7").stat().st_mode & 0o777 == 0o644
    assert cluster._lock_free(["7"], 1, tmp_path, "machine") == []
    os.kill(child, signal.SIGKILL)
    for _ in range(500):  # it is nobody's child here: its end is not waited for, but seen
        if cluster._lock_free(["7"], 1, tmp_path, "machine"):
            break
        time.sleep(0.02)
    else:
        pytest.fail("the lock outlived all of its holders")


def test_processes_of_one_node_share_its_cores():
    command = cluster.torchrun(["-m", "libranas"], nodes=1, processes=4, threads=9)
    assert command[:2] == ["env", "OMP_NUM_THREADS=2"]
    assert command[command.index("--nproc-per-node") + 1] == "4" and command[-2:] == ["-m", "libranas"]


def test_left_over_jobs_are_cancelled_and_waited_for(tmp_path, monkeypatch):
    (tmp_path / "jobs").write_text("41\n42\n")
    tools = {"squeue": f"cat {tmp_path}/jobs", "scancel": f'echo "$@" > {tmp_path}/cancelled; : > {tmp_path}/jobs'}
    for name, line in tools.items():
        (tool := tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert cluster.cancel_left_over("name") == 2
    assert (tmp_path / "cancelled").read_text() == "41 42\n"
    assert cluster.cancel_left_over("name") == 0
    (tmp_path / "squeue").write_text("#!/bin/sh\necho no controller >&2; exit 1\n")
    with pytest.raises(LibranasError, match="no controller"):
        cluster.cancel_left_over("name")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_work_ends_between_two_items_when_asked(number):
    before, done = signal.getsignal(number), []
    with pytest.raises(Stopped, match=re.escape(f"Stopped by {number.name}, work: 2 of 4.")):
        for item in progress(range(4), 4, "work"):
            if item == 1:
                os.kill(os.getpid(), number)
            done.append(item)
    assert done == [0, 1]
    assert signal.getsignal(number) == before
    assert list(progress(range(2), 2, "more work")) == [0, 1]  # what was asked of one loop is not asked of the next


def test_long_work_tells_the_time_left(monkeypatch, caplog):
    clock = iter([0, 0, 6, 12, 18, 24])  # before the first item, at each, after the last
    monkeypatch.setattr(core_progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(sys, "stderr", terminal := StringIO())
    terminal.isatty = lambda: True
    with caplog.at_level("INFO"):
        assert list(progress(range(4), 4, "work")) == [0, 1, 2, 3]
    assert caplog.messages == ["work: 2 of 4 after 12 s, about 12 s left", "work: 4 of 4 in 24.0 s"]
    assert re.search(r"work: +0%.* 0/4 \[00:00<", terminal.getvalue())


def test_work_that_is_done_when_asked_is_not_stopped():
    for _ in progress([0], 1, "work"):
        os.kill(os.getpid(), signal.SIGTERM)
    with stop_when_asked():
        may_stop("nothing was asked")


def test_loops_of_other_threads_work_without_signals():
    result = []
    thread = threading.Thread(target=lambda: result.extend(progress(range(3), 3, "work")))
    thread.start()
    thread.join()
    assert result == [0, 1, 2]
