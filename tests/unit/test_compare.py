"""Two sources of accuracies side by side, and what the noise of training leaves to be predicted."""

import numpy as np
import pandas as pd
import pytest

from libranas.core.stats import spearman
from libranas.labels.agreement import agreement, between_seeds, noise_ceiling


def trainings(rng, n=2000, repeated=2000, seeds=3, spread=2.0, noise=1.0):
    """Accuracies of `n` architectures, the first `repeated` with several seeds, and their true values."""
    truth = spread * rng.normal(size=n)
    rows = [
        (f"a{i:04d}", s, truth[i] + noise * rng.normal()) for i in range(n) for s in range(seeds if i < repeated else 1)
    ]
    return pd.DataFrame(rows, columns=["id", "seed", "accuracy"]), pd.Series(truth, [f"a{i:04d}" for i in range(n)])


@pytest.mark.parametrize(("spread", "noise"), [(2.0, 1.0), (1.0, 1.5)])
def test_noise_ceiling_is_what_the_true_accuracies_reach(spread, noise):
    table, truth = trainings(np.random.default_rng(0), spread=spread, noise=noise)
    found = noise_ceiling(table, 0)
    means = table.groupby("id")["accuracy"].mean()
    assert found["ceiling"] == pytest.approx(spearman(truth, means[truth.index]), abs=0.03)
    assert found["noise_std"] == pytest.approx(noise, rel=0.05)
    assert found["network_std"] == pytest.approx(spread, rel=0.05)
    assert found["low"] < found["ceiling"] < found["high"]
    assert (found["architectures"], found["repeated"], found["trainings"]) == (2000, 2000, 6000)


def test_noise_ceiling_of_unequal_numbers_of_trainings():
    table, truth = trainings(np.random.default_rng(4), repeated=400, seeds=8)
    means = table.groupby("id")["accuracy"].mean()
    found = noise_ceiling(table, 0)
    assert found["ceiling"] == pytest.approx(spearman(truth, means[truth.index]), abs=0.02)
    once = noise_ceiling(trainings(np.random.default_rng(4), repeated=20, seeds=8)[0], 0)
    assert once["ceiling"] < found["ceiling"]


def test_seeds_agree_over_all_their_pairs():
    table, _ = trainings(np.random.default_rng(5), n=60, repeated=60, seeds=2)
    wide = table.pivot(index="id", columns="seed", values="accuracy")
    found = between_seeds(table, 0)
    assert found["spearman"] == spearman(wide[0], wide[1]) and (found["n"], found["pairs"]) == (60, 1)
    assert found["low"] < found["spearman"] < found["high"]

    more, _ = trainings(np.random.default_rng(5), n=60, repeated=12, seeds=4)
    more = more[~((more["id"] == "a0003") & (more["seed"] == 3))]
    wide = more.pivot(index="id", columns="seed", values="accuracy").iloc[:12]
    expected = [spearman(*wide[[a, b]].dropna().to_numpy().T) for a in range(4) for b in range(a + 1, 4)]
    found = between_seeds(more, 0)
    assert (found["n"], found["pairs"]) == (12, 6)
    assert found["spearman"] == pytest.approx(np.average(expected, weights=[12, 12, 11, 12, 11, 11]))


def test_seeds_of_hardly_any_architectures():
    few, _ = trainings(np.random.default_rng(6), n=20, repeated=2, seeds=3)
    found = between_seeds(few, 0)
    assert np.isnan([found["spearman"], found["low"], found["high"]]).all() and found["n"] == 2
    sparse, _ = trainings(np.random.default_rng(7), n=30, repeated=30, seeds=2)
    more, _ = trainings(np.random.default_rng(7), n=30, repeated=4, seeds=4)
    found = between_seeds(pd.concat([sparse, more[more["seed"] > 1]]), 0)
    assert found["pairs"] == 6 and found["low"] < found["spearman"] < found["high"]


def test_noise_ceiling_of_few_repeats_and_of_nothing_but_noise():
    few, _ = trainings(np.random.default_rng(1), n=60, repeated=12, seeds=4)
    found = noise_ceiling(few.sample(frac=1, random_state=0), 0)
    assert found["repeated"] == 12 and found["trainings"] == 96 and 0.6 < found["ceiling"] < 0.97
    assert found == noise_ceiling(few, 0)
    noise, _ = trainings(np.random.default_rng(2), spread=0.0)
    assert noise_ceiling(noise, 0)["ceiling"] < 0.25


def test_agreement_with_some_repeats():
    table, truth = trainings(np.random.default_rng(3), n=80, repeated=10)
    other = truth.rename_axis("id").rename("accuracy").reset_index().assign(seed=0).iloc[20:]
    found = agreement(table, other, truth, 0)
    assert found["n"] == 60 and found["other_with_params"] == 1 and found["noise"]["repeated"] == 10
    single = agreement(table[table["seed"] == 0], other, truth, 0)
    assert single["between_seeds"] is None and single["noise"] is None
    assert found["between_seeds"] == between_seeds(table, 0) and found["between_seeds"]["n"] == 10
