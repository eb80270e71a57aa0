"""What a piece of work costs: wall-clock seconds and peak memory."""

import time
from pathlib import Path

import torch

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class Meter:
    """Measures what is done inside it; a context manager.

    Attributes
    ----------
    seconds : float
        Wall clock; a GPU is waited for at both ends.
    peak_bytes : float
        Largest memory held at any moment inside: what the allocator has handed out on a GPU, the resident
        memory of the whole process on a CPU (Linux; NaN elsewhere).
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds = self.peak_bytes = float("nan")

    def __enter__(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self._resettable = _reset_peak()
        self._begin = time.perf_counter()
        return self

    def __exit__(self, *_):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds = time.perf_counter() - self._begin
        if self.device.type == "cuda":
            self.peak_bytes = float(torch.cuda.max_memory_allocated(self.device))
        elif self._resettable:
            self.peak_bytes = _peak()


def _reset_peak() -> bool:
    """Set the process's high-water mark to what it holds now; whether the system can."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def peak_memory(device: torch.device) -> float:
    """Bytes held at most so far: by the allocator of a GPU, or by this process (Linux; NaN elsewhere)."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return _peak() if _STATUS.exists() else float("nan")


def _peak() -> float:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return 1024.0 * int(line.split()[1])
