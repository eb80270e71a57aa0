"""Report the progress of a training: metrics.jsonl, files for TensorBoard, a bar on a terminal, lines of the log."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from libranas.core.errors import LibranasError
from libranas.core.files import AppendLog
from libranas.core.meter import peak_memory
from libranas.core.progress import INTERVAL
from libranas.training.run_state import RunState
from libranas.training.settings import Settings

log = logging.getLogger("libranas")


class Metrics:
    """Records of a run; only those of the `first` process are written.

    Parameters
    ----------
    updates, batch : updates of the whole run, and images of each
    """

    def __init__(self, settings: Settings, first: bool, device: torch.device, updates: int, batch: int):
        self.settings, self.first, self.device, self.updates, self.batch = settings, first, device, updates, batch
        self.bar = self.lines = self.board = None
        self.told = self.since = time.monotonic()
        self.seen = 0  # images since then

    @contextmanager
    def open(self) -> Iterator[None]:
        """Show a bar on a terminal, with images a second and the time left; close all files at the end."""
        shown = self.first and sys.stderr.isatty()
        total = self.updates * self.batch
        with (
            tqdm(total=total, unit=" images", unit_scale=True, disable=not shown, leave=False) as self.bar,
            logging_redirect_tqdm() if shown else nullcontext(),
        ):
            try:
                yield
            finally:
                self._close()

    def go_on_from(self, state: RunState) -> None:
        """Set the bar to `state`, and open the files without the lines of updates that are about to be repeated."""
        self.bar.reset()
        self.bar.initial = self.bar.n = self.bar.last_print_n = state.step * self.batch  # not of this run's speed
        self.bar.refresh()
        if not self.first:
            return
        self._close()
        self.lines = AppendLog(self.settings.folder / "metrics.jsonl")  # locks it, and cuts off a torn line
        self.lines.keep(sum(_is_past(record, state) for record in self.lines.records))
        if self.settings.tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise LibranasError(
                    f"TensorBoard's files need the package {error.name}.", "pip install 'libranas[tensorboard]'"
                ) from None
            self.board = SummaryWriter(self.settings.folder / "tensorboard", purge_step=state.step + 1)

    def _close(self) -> None:
        for opened in (self.lines, self.board):
            if opened:
                opened.close()
        self.lines = self.board = None

    def start_clock(self) -> None:
        """Measure the speed from now on."""
        self.since, self.seen = time.monotonic(), 0

    def count_update(self) -> None:
        self.seen += self.batch
        self.bar.update(self.batch)

    def tell_updates(self, epoch: int, step: int, loss: float, rate: float) -> None:
        """Record the mean loss, learning rate, speed and memory since the last record."""
        speed, memory = self.seen / (time.monotonic() - self.since), peak_memory(self.device)
        self.tell("updates", step, epoch=epoch, loss=loss, lr=rate, images_per_second=speed, peak_bytes=memory)
        self.bar.set_postfix(loss=f"{loss:.3f}", memory=f"{memory / 2**30:.1f} GiB")
        if self.bar.disable and time.monotonic() - self.told > INTERVAL:
            left = timedelta(seconds=round((self.updates - step) * self.batch / speed))
            log.info(
                "update %d of %d: loss %.4f, %.0f images/s, %.1f GiB, about %s left without evaluations",
                *(step, self.updates, loss, speed, memory / 2**30, left),
            )
            self.told = time.monotonic()
        self.start_clock()

    def tell(self, event: str, step: int, **record) -> None:
        if self.lines:
            self.lines.append({"event": event, "step": step, **record})
        if self.board:
            for name, value in record.items():
                self.board.add_scalar(f"{event}/{name}", value, step)


def _is_past(record: dict, state: RunState) -> bool:
    """An epoch's line can be of a checkpoint that was written before its evaluation."""
    done = record["event"] != "epoch" or record["epoch"] < len(state.history)
    return done and record["step"] <= state.step
