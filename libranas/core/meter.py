"""Measure what a piece of work costs: wall-clock seconds and peak memory. Torch is imported only for a GPU."""

import time
from pathlib import Path

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class Meter:
    """Measures what is done inside it; a context manager.

    Attributes
    ----------
    seconds : wall clock; a GPU is waited for at both ends
    peak_bytes : largest memory held at any moment inside: what the allocator has handed out on a GPU, the resident
        memory of the whole process on a CPU (Linux; NaN elsewhere)
    """

    def __init__(self, device):
        self.device, self._measures_peak = device, True
        self.seconds = self.peak_bytes = float("nan")

    def __enter__(self):
        if self.device.type == "cuda":
            import torch

            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            try:
                _CLEAR.write_text("5")  # sets the process's high-water mark to what it holds now
            except OSError:
                self._measures_peak = False
        self._begin = time.perf_counter()
        return self

    def __exit__(self, *_):
        if self.device.type == "cuda":
            import torch

            torch.cuda.synchronize(self.device)
        self.seconds = time.perf_counter() - self._begin
        if self._measures_peak:
            self.peak_bytes = peak_memory(self.device)


def peak_memory(device) -> float:
    """Return the most bytes held so far: by the allocator of a GPU, or by this process (Linux; NaN elsewhere)."""
    if device.type == "cuda":
        import torch

        return float(torch.cuda.max_memory_allocated(device))
    if not _STATUS.exists():
        return float("nan")
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return 1024.0 * int(line.split()[1])
