"""Random streams: independent seeds by name.

One master seed names many independent streams: ``stream_seed(master, "init", arch.id, 2)``. A stream does not
depend on which others were drawn or in which order. So a resumed, sharded or partial run draws the same numbers as
an undisturbed one.
"""

import hashlib


def stream_seed(master: int, *names: str | int) -> int:
    """Seed (63 bits) of the random stream called `names` under the master seed."""
    text = "/".join([str(master), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1
