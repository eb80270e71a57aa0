"""Random streams: independent seeds by name."""

import hashlib

import numpy as np


def stream_seed(master: int, *names: str | int) -> int:
    """Return the seed (63 bits) of the random stream called `names` under the master seed.

    A stream does not depend on which others were drawn or in which order. So a resumed, sharded or partial run draws
    the same numbers as an undisturbed one.
    """
    return int.from_bytes(_digest(master, names)[:8]) >> 1


def random_words(count: int, master: int, *names: str | int) -> np.ndarray:
    """Return `count` random 64-bit words, uint64, of a stream.

    They come from a counter-based generator (Philox 4x64-10; Salmon et al., 2011): word i is a function of the
    stream and of i alone, so that any device can make any part of them.
    """
    return np.random.Philox(key=stream_key(master, *names)).random_raw(count)


def stream_key(master: int, *names: str | int) -> int:
    """Return the key (128 bits) of the generator of :func:`random_words`."""
    return int.from_bytes(_digest(master, names)[:16], "little")


def _digest(master: int, names: tuple[str | int, ...]) -> bytes:
    return hashlib.sha256("/".join([str(master), *map(str, names)]).encode()).digest()
