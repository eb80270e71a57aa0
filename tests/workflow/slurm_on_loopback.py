"""A real SLURM of three nodes on loopback: munge, slurmctld and three slurmd of Debian's packages, fake GPUs.

Everything lives in one folder and on 127.0.0.1; no service of the machine is touched. Node n1 has two GPUs (character
devices that nothing reads), the only ones of partition `gpu`; n2 has one, and jobs without a GPU go there first; n3 is
there to die: partition `frail` has it and n1.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PACKAGES = "slurmctld slurmd slurm-client munge"
NODES = ("n1", "n2", "n3")

CONFIG = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# the second number is also how long a job that is put back into the queue waits
AuthInfo=socket={folder}/munge/socket,cred_expire=5
SlurmctldPort={ports[0]}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
# a node may claim more cores than the machine has
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=200
SchedulerParameters=sched_min_interval=0,batch_sched_delay=0,bf_interval=2,sched_interval=2
ReturnToService=2
MinJobAge=3600
KillWait=5
InactiveLimit=0
JobRequeue=1
SlurmdTimeout=10
AccountingStorageType=accounting_storage/none
# jobs above their memory are killed, without control groups
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=8 RealMemory=200000 Gres=gpu:2 Weight=2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=8 RealMemory=200000 Gres=gpu:1 Weight=1
NodeName=n3 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[3]} CPUs=8 RealMemory=200000 Weight=1
PartitionName=cpu Nodes=n[1-2] Default=YES MaxTime=14400 DefaultTime=5 State=UP
PartitionName=frail Nodes=n1,n3 MaxTime=14400 DefaultTime=5 State=UP
PartitionName=gpu Nodes=n1 MaxTime=14400 DefaultTime=5 State=UP
"""

#: The plugin's job step drops SLURM_CONF before it calls srun and what that starts.
CLIENT = """#!/bin/sh
export SLURM_CONF={folder}/slurm.conf
exec {path} "$@"
"""


def missing() -> str | None:
    """What keeps a SLURM from being started here, and what to do about it; None if nothing does."""
    if absent := [name for name in ("munged", "slurmctld", "slurmd", "sbatch", "srun") if not shutil.which(name)]:
        return f"{', '.join(absent)} not found: apt-get install --no-install-recommends {PACKAGES}"
    if os.geteuid() != 0:
        return "SLURM's daemons and the devices that stand for GPUs need root"
    try:
        import snakemake_executor_plugin_slurm  # noqa: F401
    except ImportError:
        return "no SLURM plugin of Snakemake: pip install -r requirements.lock"
    return None


def processes_with(entry: bytes) -> list[int]:
    """Processes that have `entry` (NAME=value) in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdigit() and entry in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


@dataclass
class Slurm:
    """A running cluster; `environment` is what a user's shell has on its login node."""

    folder: Path
    environment: dict[str, str]

    def run(self, *command: str) -> str:
        return subprocess.run(
            command, env=self.environment, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ).stdout

    def jobs(self, name: str | None = None) -> dict[int, dict[str, str]]:
        """All jobs, also finished ones: id to ``state``, ``node``, ``restarts``, ``comment`` (the rule)."""
        listed = self.run(
            *("squeue", "--all", "--states=all", "--noheader", "--format", "%i|%T|%N|%k|%j"),
            *(("--name", name) if name else ()),
        )
        rows = (line.split("|") for line in listed.splitlines() if "|" in line)
        return {int(i): {"state": s, "node": n, "comment": c, "name": j} for i, s, n, c, j in rows}

    def detail(self, job: int) -> dict[str, str]:
        """What ``scontrol show job`` says."""
        words = self.run("scontrol", "show", "job", "--oneliner", str(job)).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def scripts(self, job: int) -> list[int]:
        """Processes of a job that run a script of the workflow."""
        found = []
        for pid in processes_with(f"SLURM_JOB_ID={job}".encode()):
            with suppress(OSError):
                if b".snakemake/scripts/" in (Path("/proc") / str(pid) / "cmdline").read_bytes().split(b"\0")[1]:
                    found.append(pid)
        return found

    def kill_node(self, node: str, job: int) -> None:
        """The node is gone: its daemon, and the job's step daemons and processes with it."""
        pid = int((self.folder / f"slurmd.{node}.pid").read_text())
        stepds = []
        for folder in Path("/proc").iterdir():
            with suppress(OSError):
                if folder.name.isdigit() and f"slurmstepd: [{job}".encode() in (folder / "cmdline").read_bytes():
                    stepds.append(int(folder.name))
        for victim in (pid, *stepds, *processes_with(f"SLURM_JOB_ID={job}".encode())):
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)

    def start_node(self, node: str) -> None:
        self.run("slurmd", "-N", node)

    def wait_for_nodes(self, patience: float = 60) -> None:
        end = time.monotonic() + patience
        while True:
            with suppress(subprocess.CalledProcessError):
                states = self.run("sinfo", "--noheader", "--Node", "--format=%N %T").splitlines()
                if {line.split()[0] for line in states if line.endswith((" idle", " mixed"))} == set(NODES):
                    return
            if time.monotonic() > end:
                raise RuntimeError(f"nodes did not come up; {self.folder}/log:\n{self.logs()}")
            time.sleep(0.1)

    def logs(self) -> str:
        return "\n".join(f"== {p.name}\n{p.read_text()[-3000:]}" for p in sorted((self.folder / "log").iterdir()))


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


def start() -> Slurm:
    folder = Path(tempfile.mkdtemp(prefix="libranas-slurm-"))  # a short path: it holds a socket
    for name in ("munge", "state", "spool/n1", "spool/n2", "spool/n3", "log", "bin"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge/key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    for number in (0, 1):  # not those of /dev/null
        os.mknod(folder / f"gpu{number}", 0o600 | 0o020000, os.makedev(1, 7 + number))
    host = socket.gethostname().split(".")[0]
    (folder / "slurm.conf").write_text(CONFIG.format(folder=folder, host=host, ports=free_ports(4)))
    gres = f"NodeName=n1 Name=gpu File={folder}/gpu[0-1]\nNodeName=n2 Name=gpu File={folder}/gpu0\n"
    (folder / "gres.conf").write_text(gres)
    for name in ("srun", "squeue", "scontrol"):
        client = folder / "bin" / name
        client.write_text(CLIENT.format(folder=folder, path=shutil.which(name)))
        client.chmod(0o755)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SLURM_")},
        "SLURM_CONF": f"{folder}/slurm.conf",
        "PATH": f"{folder}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    slurm = Slurm(folder, environment)
    subprocess.run(
        ["munged", "--force", f"--key-file={key}", f"--socket={folder}/munge/socket"]
        + [f"--{name}-file={folder}/munge/{name}" for name in ("pid", "log", "seed")],
        check=True,
    )
    slurm.run("slurmctld")
    for node in NODES:
        slurm.start_node(node)
    slurm.wait_for_nodes()
    return slurm


def stop(slurm: Slurm) -> None:
    """End the daemons by their pid files and wait for each."""
    with suppress(subprocess.CalledProcessError):
        slurm.run("scancel", "--me")
    files = [*slurm.folder.glob("slurmd.*.pid"), slurm.folder / "slurmctld.pid", slurm.folder / "munge/pid"]
    for file in files:
        with suppress(OSError, ValueError):
            pid = int(file.read_text())
            os.kill(pid, signal.SIGTERM)
            end = time.monotonic() + 30
            while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
                time.sleep(0.05)
    shutil.rmtree(slurm.folder, ignore_errors=True)
