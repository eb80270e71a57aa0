"""Shards: even, stable when the sample or their number grows, and as many as a sample needs."""

import hashlib
from collections import Counter

import pytest

from libranas.core.shards import shard_of, shards_for

IDS = [hashlib.sha256(str(i).encode()).hexdigest()[:12] for i in range(20000)]
KNOWN = [7, 6, 5, 6, 0, 1, 8, 0, 8, 6, 7, 3]


def test_known_values():
    """Written down once: a change would move architectures away from their progress."""
    assert [shard_of(i, 10) for i in IDS[:12]] == KNOWN
    assert shard_of("ffffffffffff", 1) == 0


@pytest.mark.parametrize(("before", "after"), [(2, 3), (10, 11), (10, 40), (100, 101)])
def test_more_shards_take_their_part_and_move_nothing_else(before, after):
    moved = [(shard_of(i, before), shard_of(i, after)) for i in IDS]
    gone = [(a, b) for a, b in moved if a != b]
    assert all(b >= before for _, b in gone)
    assert len(gone) / len(IDS) == pytest.approx(1 - before / after, abs=0.02)


@pytest.mark.parametrize("shards", [1, 7, 100])
def test_shards_are_even(shards):
    counts = Counter(shard_of(i, shards) for i in IDS)
    assert set(counts) == set(range(shards))
    expected = len(IDS) / shards
    assert all(abs(n - expected) < 5 * expected**0.5 for n in counts.values())


def test_the_automatic_number_grows_more_slowly_than_the_sample():
    counts = (20, 120, 10_000, 50_000, 100_000, 200_000, 1_000_000, 10_000_000)
    assert [shards_for(n) for n in counts] == [1, 1, 100, 500, 500, 500, 2500, 2500]
