"""Latency: the order and count of timed runs, the sums of a table, and the budget that looks it up."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from enumeration import members

from libranas.core.errors import LibranasError
from libranas.latency import measure as latency
from libranas.latency.table import Conditions, Latency, LatencyTable
from libranas.latency.table import record as latency_record
from libranas.spaces import AutoFormerSpace, Budget, PiTSpace, Sampler

SPACE = AutoFormerSpace((16, 24), (2, 4), (1, 2), (1.0, 2.0), 8, 8, 4, 1, 5, max_relative_position=1)
PIT = PiTSpace((4, 6), (1.0, 2.0), ((1, 2), (2, 3), (1, 3)), (1, 2), 8, 2, 2, 1, 5)


def true(arch) -> float:
    """Milliseconds of a machine on which blocks add up."""
    if arch.family == "pit":
        widths = [arch["base_dim"] * h for h in arch["num_heads"]]
        blocks = zip(widths, arch["depth"], (4, 2, 1), strict=True)
        return 3 + widths[0] * widths[1] / 9 + widths[2] + sum(d * w * s * arch["mlp_ratio"] for w, d, s in blocks)
    width = arch["embed_dim"]
    blocks = zip(arch["num_heads"], arch["mlp_ratio"], strict=True)
    return 3 + width / 10 + sum(0.5 * h + width * r / 50 for h, r in blocks)


def ideal(space, archs):
    return [Latency(true(a), true(a), true(a)) for a in archs]


@pytest.fixture
def table():
    return latency.measure(SPACE, ideal, 2, seed=1)[0]


@pytest.fixture
def pit_table():
    return latency.measure(PIT, ideal, 2, seed=1)[0]


def test_runs_are_interleaved_warmed_up_and_waited_for(monkeypatch):
    now, order, waited = [0.0], [], []

    def run(i):
        def go():
            order.append(i)
            now[0] += (i + 1) * (1 if len(order) > 6 else 100) / 1000  # the first runs are slow

        return go

    monkeypatch.setattr(latency.time, "perf_counter", lambda: now[0])
    found = latency.in_rounds([run(i) for i in range(3)], 2, 4, lambda: waited.append(len(order)))
    assert [round(Latency.of(seconds).median, 9) for seconds in found] == [1.0, 2.0, 3.0]
    rounds = [order[i : i + 3] for i in range(0, 18, 3)]
    assert len(order) == 18 and all(sorted(r) == [0, 1, 2] for r in rounds)
    assert {r[0] for r in rounds} == {0, 1, 2}  # none is always first
    assert waited == [n for i in range(18) for n in (i, i + 1)]


def test_median_and_quartiles_in_milliseconds():
    assert Latency.of([0.001, 0.002, 0.003, 0.004, 0.105]) == Latency(3.0, 2.0, 4.0)


def test_blocks_and_ends_are_told_apart(table):
    assert len(table.blocks) == 2 * 2 * 2 and set(table.ends) == {(16,), (24,)}
    assert table.blocks[24, 2, 1.0] == pytest.approx(0.5 * 2 + 24 / 50)
    assert table.ends[16,] == pytest.approx(4.6)
    for arch in Sampler(SPACE, Budget(), np.random.default_rng(0)).take(20):
        assert table(arch) == pytest.approx(true(arch))


def test_blocks_and_ends_of_a_pit_are_told_apart(pit_table):
    assert len(pit_table.blocks) == 3 * 2 * 2 * 2
    assert set(pit_table.ends) == {(width, heads) for width in PIT.base_dim for heads in PIT.heads}
    assert pit_table.blocks[1, 6, 2, 2.0] == pytest.approx(6 * 2 * 2 * 2.0)
    everything = list(members(PIT))
    assert [pit_table(a) for a in everything] == pytest.approx([true(a) for a in everything])
    found = [true(a) for a in pit_table.extremes(PIT)]
    assert (min(found), max(found)) == (min(map(true, everything)), max(map(true, everything)))


def test_a_table_is_checked_with_networks_that_made_no_entry():
    found = latency.measure(SPACE, ideal, 6, seed=1)[1]
    assert found["worst_error"] < 1e-12 and found["spearman"] == pytest.approx(1) and len(found["networks"]) == 6

    def slower(space, archs):  # mixed blocks cost more than equal ones
        mixed = [len(set(a["num_heads"])) > 1 or len(set(a["mlp_ratio"])) > 1 for a in archs]
        return [
            replace(v, median=v.median * (1.25 if m else 1)) for v, m in zip(ideal(space, archs), mixed, strict=True)
        ]

    found = latency.measure(SPACE, slower, 6, seed=1)[1]
    assert found["worst_error"] == pytest.approx(0.2) and -0.2 - 1e-12 <= found["bias"] < 0
    assert json.loads(json.dumps(found)) == found


def test_a_table_survives_its_file(table, pit_table, tmp_path):
    for one in (table, pit_table):
        (tmp_path / "table.json").write_text(json.dumps(one.to_dict()))
        again = LatencyTable.read(tmp_path / "table.json")
        assert again == one and repr(again) == repr(one)
    assert repr(replace(table, ends={(16,): 1.0, (24,): 1.0})) != repr(table)
    with pytest.raises(LibranasError, match="no entry"):
        table(SPACE.arch(32, [1], [1.0]))


def test_windows_in_any_combination(table):
    everything = list(members(SPACE))
    sizes, times = np.array([SPACE.params(a) for a in everything]), np.array([table(a) for a in everything])
    budget = Budget(params=(4000, 9000), latency=(0, float(np.median(times))), clock=table)
    inside = (sizes >= 4000) & (sizes <= 9000) & (times <= np.median(times))
    assert 0 < inside.sum() < min((times <= np.median(times)).sum(), ((sizes >= 4000) & (sizes <= 9000)).sum())
    assert [budget.admits(SPACE, a) for a in everything] == list(inside)
    drawn = Sampler(SPACE, budget, np.random.default_rng(0)).take(10)
    assert all(budget.admits(SPACE, a) for a in drawn)
    low, high = times.min(), times.max()
    with pytest.raises(LibranasError, match=rf"budget.latency .* is infeasible: .* {low:.2f}\d* to {high:.2f}"):
        Budget(latency=(0, low * 0.99), clock=table).check(SPACE)
    Budget(latency=(0, low * 1.01), clock=table).check(SPACE)


def test_real_networks_are_timed_and_threads_put_back():
    before = torch.get_num_threads()
    conditions = Conditions(batch=2, dtype="bfloat16", warmup=1, repetitions=3)
    archs = [SPACE.arch(16, [1] * d, [1.0] * d) for d in (2, 4)]
    found = latency.timer(conditions)(SPACE, archs)
    for space, blocks in ((SPACE, 8), (PIT, 24)):
        table, checked = latency.measure(space, latency.timer(conditions), 2, seed=1)
        assert len(table.blocks) == blocks
        assert all(0 < s["low"] <= s["median"] <= s["high"] for s in checked["sources"])
    assert all(0 < f.low <= f.median <= f.high for f in found) and torch.get_num_threads() == before
    record = latency_record(archs[0], found[0], None, conditions)
    assert record["conditions"]["dtype"] == "bfloat16" and record["median"] == found[0].median
