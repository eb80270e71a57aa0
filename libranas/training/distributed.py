"""Processes of a training: one, or as many as torchrun or SLURM started."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

from libranas.core.errors import LibranasError

#: Longest wait of a process for the others, such as while one reads images that the others have in memory.
TIMEOUT = timedelta(minutes=30)


@dataclass
class World:
    """This process (`rank`) among `size`. Collectives for control run on the CPU, so that none waits for a GPU."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    control: dist.ProcessGroup | None = None

    @classmethod
    def from_environment(cls, device: str = "auto") -> "World":
        """Join the processes that torchrun's variables describe; alone without them.

        Under ``srun`` SLURM_PROCID, SLURM_NTASKS and SLURM_LOCALID count, but only with MASTER_ADDR: a batch script has
        them too, for its one process.
        """
        env = os.environ
        srun = "MASTER_ADDR" in env and "RANK" not in env
        names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID") if srun else ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        rank, size, local_rank = (int(env.get(name, default)) for name, default in zip(names, "010", strict=True))
        kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        if kind.startswith("cuda"):
            if not torch.cuda.is_available():
                raise LibranasError(f"device {device}: PyTorch finds no GPU here.", "Use device cpu or auto.")
            if size > 1 or ":" not in kind:
                kind = f"cuda:{local_rank if size > 1 else 0}"
            if torch.device(kind).index >= torch.cuda.device_count():
                raise LibranasError(
                    f"Process {rank} is to use {kind}, but this machine shows {torch.cuda.device_count()} GPU(s).",
                    "Start as many processes on a machine as it has GPUs. For one process name a GPU that is there.",
                )
            torch.cuda.set_device(kind)
        if size == 1:
            return cls(device=torch.device(kind))
        if not dist.is_initialized():
            backend = "nccl" if kind.startswith("cuda") else "gloo"
            dist.init_process_group(backend, rank=rank, world_size=size, timeout=TIMEOUT)
        control = dist.new_group(backend="gloo", timeout=TIMEOUT)
        return cls(rank, size, torch.device(kind), control)

    @property
    def first(self) -> bool:
        """Return whether this process is the one that writes."""
        return self.rank == 0

    def largest(self, *values: float) -> list[float]:
        """Return the largest of each value over the processes; all must call it."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self.control)
        return tensor.tolist()

    def total(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def mean(self, value: torch.Tensor) -> float:
        """Return the mean of a number over the processes."""
        return self.total(value.clone()).item() / self.size

    def first_does(self, work: Callable):
        """Call `work` in the first process and return its (small, JSON-like) result in all; so with a LibranasError."""
        if self.size == 1:
            return work()
        box = [None, None]
        if self.first:
            try:
                box[0] = work()
            except LibranasError as error:
                box[1] = (error.what, error.todo)
        dist.broadcast_object_list(box, 0, group=self.control)
        if box[1]:
            raise LibranasError(*box[1])
        return box[0]

    def gathered(self, value) -> list:
        """Return the (small, JSON-like) `value` of every process, in the order of ranks."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        dist.all_gather_object(values, value, group=self.control)
        return values

    def same_buffers(self, model: nn.Module) -> None:
        """Give every process the first one's buffers: running statistics of batch normalisation differ."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def close(self) -> None:
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()
