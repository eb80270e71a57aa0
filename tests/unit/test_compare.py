"""Two sources of accuracies side by side, and what the noise of training leaves to be predicted."""

import numpy as np
import pandas as pd
import pytest

from libranas.compare import agreement, noise_ceiling
from libranas.stats import spearman


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
    first = table[table["seed"] == 0].set_index("id")["accuracy"]
    assert found["ceiling"] == pytest.approx(spearman(truth, first[truth.index]), abs=0.03)
    assert found["noise_std"] == pytest.approx(noise, rel=0.05)
    assert found["spread_std"] == pytest.approx(np.hypot(spread, noise), rel=0.05)
    assert found["low"] < found["ceiling"] < found["high"]
    assert (found["architectures"], found["repeated"], found["trainings"]) == (2000, 2000, 6000)


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
    both = table[table["seed"] < 2].pivot(index="id", columns="seed", values="accuracy").dropna()
    assert found["between_seeds"] == spearman(both[0], both[1]) and len(both) == 10
