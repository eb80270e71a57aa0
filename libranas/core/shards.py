"""Number of jobs for a sample, and the job of each architecture."""

#: What an automatic number of shards aims at: architectures a job, and the most jobs of that size. A job costs some ten
#: seconds before its first network and half a minute of waiting, which a hundred networks of seconds each outweigh;
#: Snakemake plans some two hundred jobs a second. benchmarks/throughput.py and benchmarks/scale.py show both.
AIMS = ((100, 500), (400, 2500))


def shards_for(count: int) -> int:
    """Choose the number of shards for `count` architectures."""
    return max(1, *(min(limit, round(count / architectures)) for architectures, limit in AIMS))


def shard_of(identifier: str, shards: int) -> int:
    """Return the shard in 0 .. shards - 1 of the architecture with this id (hexadecimal).

    Jump consistent hash (Lamping and Veach, arXiv 1406.2294). It depends on nothing but the id, so it stays when the
    sample grows; and from N to M > N shards an architecture stays with probability N / M or goes to one of the new
    shards, never from one old shard to another.
    """
    key, last, next_ = int(identifier, 16), 0, 0
    while next_ < shards:
        last = next_
        key = (key * 2862933555777941757 + 1) % (1 << 64)  # the paper's generator
        next_ = int((last + 1) * (1 << 31) / ((key >> 33) + 1))
    return last
