"""Random streams: independent seeds by name."""

import hashlib


def stream_seed(master: int, *names: str | int) -> int:
    """Return the seed (63 bits) of the random stream called `names` under the master seed.

    A stream does not depend on which others were drawn or in which order. So a resumed, sharded or partial run draws
    the same numbers as an undisturbed one.
    """
    text = "/".join([str(master), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1
