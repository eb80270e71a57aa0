"""The benchmarks' own judge of rankings: pairs of equal MACs, and their intervals."""

import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import judging


def test_pairs_of_equal_macs_are_judged_one_by_one():
    rng = np.random.default_rng(0)
    macs, value, accuracy = (pd.Series(rng.random(30)) for _ in range(3))
    macs, value = macs + 0.5, value.round(1)
    orders = [
        np.sign(value[i] - value[j]) * np.sign(accuracy[i] - accuracy[j])
        for i, j in combinations(range(30), 2)
        if max(macs[i], macs[j]) < 1.1 * min(macs[i], macs[j])
    ]
    near = judging.near_pairs(macs)
    assert near.sum() == len(orders) > 20
    mean, low, high = judging.mean_over_pairs(judging.agreements(value, accuracy), near)
    assert mean == pytest.approx(np.mean(orders)) and low < mean < high
    value.iloc[0], accuracy.iloc[1] = -np.inf, np.nan  # undefined values come last, and no pair is lost
    assert judging.agreements(value, accuracy)[0, 2] == np.sign(accuracy.iloc[2] - accuracy.iloc[0])
    assert np.isfinite(judging.mean_over_pairs(judging.agreements(value, accuracy), near)).all()


def test_intervals_over_pairs_hold_the_truth():
    """Of rankings that say nothing, 95 % of the intervals hold zero."""
    rng = np.random.default_rng(1)
    inside = []
    for _ in range(100):
        value, accuracy = (pd.Series(rng.random(40)) for _ in range(2))
        _, low, high = judging.mean_over_pairs(judging.agreements(value, accuracy), np.triu(np.ones((40, 40)), 1) > 0)
        inside.append(low <= 0 <= high)
    assert 0.88 <= np.mean(inside) <= 1


def test_rankings_of_the_same_networks_are_compared_with_size():
    rng = np.random.default_rng(2)
    columns = pd.DataFrame(rng.random((25, 2)), columns=["params", "flops"])
    columns["macs"], columns["accuracy"] = columns["flops"] + 1, columns["flops"]
    table = judging.label_free({"a": columns, "b": columns}, ["params", "flops"]).set_index(["task", "method"])
    mean = table.loc["mean", "flops"]
    assert mean["spearman"] == 1 and mean["tau"] == 1 and mean["less_flops"] == 0
    assert mean["less_params"] == pytest.approx(1 - table.loc["a", "params"]["spearman"])
    assert mean["less_params_low"] < mean["less_params"] < mean["less_params_high"]
    assert table.loc["mean", "params"]["tau_less_params"] == 0
