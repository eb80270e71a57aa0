"""Progress of long work: a bar on a terminal, plain lines in a log."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator

from tqdm import tqdm

log = logging.getLogger("libranas")


def silent(iterable: Iterable, total: int, label: str) -> Iterable:
    """What takes the place of :func:`progress` where nobody watches: `iterable` as it is."""
    return iterable


#: Seconds between two lines of a log.
INTERVAL = 10.0


def progress(iterable: Iterable, total: int, label: str) -> Iterator:
    """Pass `iterable` on; show a bar if standard error is a terminal, and log a line every ten seconds."""
    begin = last = time.monotonic()
    bar = tqdm(iterable, total=total, desc=label, file=sys.stderr, disable=not sys.stderr.isatty(), leave=False)
    done = 0
    for done, item in enumerate(bar):
        now = time.monotonic()
        if now - last >= INTERVAL:
            log.info("%s: %d of %d after %.0f s", label, done, total, now - begin)
            last = now
        yield item
    log.info("%s: %d of %d in %.1f s", label, done + 1 if total else 0, total, time.monotonic() - begin)
