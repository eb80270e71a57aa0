"""Work on shared machines: take GPUs, cancel jobs of a killed run, start processes on other nodes."""

import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from libranas.core.errors import LibranasError
from libranas.core.files import lock

log = logging.getLogger("libranas")

#: Where GPUs are locked: one place for all users and runs of a machine, whatever TMPDIR says.
LOCKS = Path("/tmp/libranas-gpus")
#: What schedulers write into CUDA_VISIBLE_DEVICES where a job has no GPU.
NONE = {"", "-1", "NoDevFiles"}

_held: list[int] = []  # descriptors of locked files: open until this process ends


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """List the GPUs that this process may use: CUDA_VISIBLE_DEVICES, or else all of nvidia-smi.

    One that is named several times, such as in ``0,0,0``, takes as many jobs at a time.
    """
    if (named := environment.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [gpu for gpu in (part.strip() for part in named.split(",")) if gpu not in NONE]
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return listed.stdout.split() if listed.returncode == 0 else []


def take_gpus(count: int, folder: Path = LOCKS, wait: float = 1.0) -> list[str]:
    """Take `count` of the visible GPUs for this process and name them in CUDA_VISIBLE_DEVICES.

    A GPU, or a place on one that is listed several times, is a locked file in `folder`; the lock ends with the process.
    Where all are held, this looks again after about `wait` seconds. In a job of SLURM only the job's own locks count:
    with control groups every job's first GPU is number 0. Call before CUDA is initialised. Returns the ids, none if no
    GPU is visible.
    """
    pool = visible_gpus()
    if not count or not pool:
        if len(set(pool)) < len(pool):  # CUDA shows no GPU at all where one is named twice
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(dict.fromkeys(pool))
        if count:
            log.warning(
                "%d GPUs are asked for and none is visible; `device` in the config decides what that means", count
            )
        return []
    if count > (most := len(set(pool))):
        raise LibranasError(
            f"This job asks for {count} GPUs and may use {most} (CUDA_VISIBLE_DEVICES or nvidia-smi: {pool}).",
            "Ask for fewer: `gpu` in set-resources of the profile.",
        )
    given = os.environ.get("SLURM_JOB_ID") if "CUDA_VISIBLE_DEVICES" in os.environ else None
    told = 0.0
    while len(mine := _lock_free(pool, count, folder, f"job{given}" if given else "machine")) < count:
        if time.monotonic() - told > 60 or not told:
            told = time.monotonic()
            log.info("waiting for %d of the GPUs %s, which others hold", count, ",".join(pool))
        time.sleep(wait * random.uniform(0.5, 1.5))
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # as nvidia-smi counts
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
    log.info("GPU %s, %s", ",".join(mine), f"of SLURM job {given}" if given else "locked on this machine")
    return mine


def _lock_free(pool: list[str], count: int, folder: Path, scope: str) -> list[str]:
    """Lock `count` of the pool, or none: half of what is needed would only keep others from it."""
    if not folder.is_dir():
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            folder.chmod(0o1777)  # another user's jobs lock here too
    mine, opened = [], []
    earlier = [pool[:place].count(gpu) for place, gpu in enumerate(pool)]
    for again, gpu in sorted(zip(earlier, pool, strict=True), key=lambda found: found[0]):  # an idle GPU first
        if gpu in mine:
            continue
        path = folder / (f"{scope}-{gpu.replace('/', '-')}" + (f".{again}" if again else ""))
        try:
            descriptor = os.open(path, os.O_RDONLY)  # a file of another user cannot be opened for creating
        except FileNotFoundError:
            descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
            os.fchmod(descriptor, 0o644)  # whatever the umask says: others must be able to open it
        try:
            lock(descriptor, f"GPU {gpu} is held.", "")
        except LibranasError:
            os.close(descriptor)
            continue
        mine.append(gpu)
        opened.append(descriptor)
        if len(mine) == count:
            _held.extend(opened)
            return mine
    for descriptor in opened:
        os.close(descriptor)
    return []


def cancel_left_over(name: str, patience: float = 120.0) -> int:
    """Cancel the SLURM jobs called `name`, which a killed Snakemake left in the queue, and wait until they are gone.

    They would write the same results as the jobs of the new run. Returns how many there were.
    """

    def queued() -> list[str]:
        return _slurm("squeue", "--me", "--noheader", "--name", name, "--format", "%i").split()

    if not (ids := queued()):
        return 0
    _slurm("scancel", *ids)
    end = time.monotonic() + patience
    while queued():
        if time.monotonic() > end:
            raise LibranasError(
                f"SLURM jobs of an earlier, killed run do not end: {' '.join(queued())}.",
                "Look at them with squeue; when they are gone, run the same command again.",
            )
        time.sleep(1)
    return len(ids)


def _slurm(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LibranasError(
            f"{command[0]} cannot be run: {error}.", "Start Snakemake where SLURM's commands work."
        ) from None
    if done.returncode:
        raise LibranasError(
            f"{' '.join(command)} failed: {done.stderr.strip()}", "Is the SLURM controller up (`sinfo`)?"
        )
    return done.stdout


def job_resources(nodes: int, gpus: int) -> dict:
    """Return what a job of several processes asks Snakemake for; `gpus` of each node.

    With several nodes of SLURM it is one task on each, which starts the processes there. The GPUs are asked for by the
    node: a sum may be spread unevenly. Tasks are not bound to GPUs, torchrun does that.
    """
    if nodes == 1:
        return {"gpu": gpus} if gpus else {}
    several = {"nodes": nodes, "tasks": nodes, "mpi": "srun"}
    return several | ({"gres": f"gpu:{gpus}", "tasks_per_gpu": 0} if gpus else {})


def torchrun(arguments: Sequence[str], nodes: int, processes: int, gpus: int = 0, threads: int = 1) -> list[str]:
    """Return the command that starts ``python arguments`` in `processes` processes on each of `nodes` nodes.

    One node is this machine. Several are those of this process's SLURM job; PyTorch's rendezvous is on the first, at a
    port that follows from the job's number. `gpus` and `threads` are those of each node.
    """
    each = f"OMP_NUM_THREADS={max(1, threads // processes)}"
    command = ["env", each, sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    if nodes == 1:
        return [*command, "--standalone", *arguments]
    if not (job := os.environ.get("SLURM_JOB_ID")):
        raise LibranasError(
            f"{nodes} nodes are asked for, and this is no job of SLURM.",
            "Start the workflow with --profile profiles/slurm, or set `nodes` to 1.",
        )
    named = _slurm("squeue", "--noheader", "--jobs", job, "--format", "%N").strip()
    first = _slurm("scontrol", "show", "hostnames", named).split()[0]
    told = _slurm("scontrol", "--oneliner", "show", "node", first).split()
    address = next((word.removeprefix("NodeAddr=") for word in told if word.startswith("NodeAddr=")), first)
    steps = ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", f"--cpus-per-task={threads}"]
    steps += [f"--gres=gpu:{gpus}"] if gpus else []
    meeting = ["--rdzv-backend", "c10d", "--rdzv-id", job, "--rdzv-endpoint", f"{address}:{29500 + int(job) % 1000}"]
    return [*steps, *command, "--nnodes", str(nodes), *meeting, *arguments]


def run_to_its_end(command: Sequence[str]) -> int:
    """Run a command in this process's place: SIGTERM and SIGUSR1 reach it too. Returns its exit code.

    It holds the locks on the GPUs as well: they stay if this process alone is killed.
    """
    with subprocess.Popen(command, pass_fds=_held) as process:
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, lambda n, _: process.send_signal(n))
        return process.wait()
