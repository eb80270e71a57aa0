"""Show the progress of long work, and end it between two pieces when a signal asks for that."""

import logging
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from libranas.core.errors import LibranasError

log = logging.getLogger("libranas")


def silent(iterable: Iterable, total: int, label: str) -> Iterable:
    """Take the place of :func:`progress` where nobody watches."""
    return iterable


#: Seconds between two lines of a log.
INTERVAL = 10.0
#: What a scheduler sends before it kills: at the time limit (as the profile asks), on scancel, preemption, requeue.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

_asked: list[signal.Signals] = []


class Stopped(LibranasError):
    """Work that ended early because a signal asked for it; its progress is kept."""


@contextmanager
def stop_when_asked() -> Iterator[None]:
    """Within this block a signal of :data:`SIGNALS` ends work only where :func:`may_stop` is called.

    Outside of it these signals kill at once, as they always do; that loses nothing that is on disk. In another thread
    than the main one the block changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda n, _: _asked.append(signal.Signals(n))) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _asked.clear()


def asked() -> signal.Signals | None:
    """Return the signal that asked for an end, if one did."""
    return _asked[0] if _asked else None


def stopped(number: signal.Signals, where: str) -> Stopped:
    """Make the exception that ends work; `where` says how far it is."""
    return Stopped(f"Stopped by {number.name}, {where}.", "Progress is kept: run it again and it goes on from here.")


def may_stop(where: str) -> None:
    """Raise :class:`Stopped` if a signal asked for it. Call it when progress is on disk."""
    if number := asked():
        raise stopped(number, where)


def progress(iterable: Iterable, total: int, label: str) -> Iterator:
    """Pass `iterable` on; show a bar if standard error is a terminal, and log a line every ten seconds.

    Between two items the work can be asked to stop (:func:`stop_when_asked`): what is done with an item must be on
    disk when the next one is asked for.
    """
    begin = last = time.monotonic()
    bar = tqdm(iterable, total=total, desc=label, file=sys.stderr, disable=not sys.stderr.isatty(), leave=False)
    done = 0
    with stop_when_asked():
        for done, item in enumerate(bar, start=1):
            now = time.monotonic()
            if now - last >= INTERVAL and done > 1:
                left = (now - begin) / (done - 1) * (total - done + 1)
                log.info("%s: %d of %d after %.0f s, about %.0f s left", label, done - 1, total, now - begin, left)
                last = now
            yield item
            if done < total:
                may_stop(f"{label}: {done} of {total}")
    log.info("%s: %d of %d in %.1f s", label, done, total, time.monotonic() - begin)
