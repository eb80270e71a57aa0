"""Guided search and its simulation on tables."""

import numpy as np
import pandas as pd
import pytest

from libranas.cli import main
from libranas.core.errors import LibranasError
from libranas.predictors import gaussian_process
from libranas.predictors.base import Sample
from libranas.published.pool import read_pool
from libranas.search import guided
from libranas.search.simulate import METHODS, Pool, best_so_far, simulate


@pytest.fixture
def groups():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(120, 3)), rng.integers(0, 2, size=(120, 5)).astype(float)]


@pytest.fixture
def accuracy(groups):
    return 80 + 5 * groups[0][:, 0] - 3 * groups[1][:, 2] + np.random.default_rng(1).normal(size=120)


def frame(accuracy, groups) -> pd.DataFrame:
    """A table in the form of a file."""
    columns = {f"s{i}": groups[0][:, i] for i in range(3)} | {f"f{i}": groups[1][:, i] for i in range(5)}
    return pd.DataFrame({"arch": [f"net {i}" for i in range(len(accuracy))], "accuracy": accuracy, **columns})


@pytest.fixture
def pool(accuracy, groups):
    table = frame(accuracy, groups)
    scores, features = table[["s0", "s1", "s2"]], table[[f"f{i}" for i in range(5)]]
    return Pool(accuracy, Sample(scores, pd.Series(0.0, table.index), features))


# -- the surrogate and its proposals --


def test_posterior_is_that_of_the_definition(groups, accuracy):
    """Against the joint covariance of all values, conditioned on the noisy ones."""
    known, rest = list(range(0, 60, 3)), list(range(60, 90))
    process = guided.surrogate(groups, known, accuracy[known])
    mean, deviation = process.posterior([g[rest] for g in groups])

    def kernel(a, b):
        total = 0.0
        for i, group in enumerate(groups):
            linear, matern, length = np.exp(process.theta[3 * i : 3 * i + 3])
            x, y = group[a][:, None], group[b][None]
            r = np.sqrt(3 * ((x - y) ** 2).mean(-1)) / length
            total = total + linear * (x * y).mean(-1) + matern * (1 + r) * np.exp(-r)
        return total

    target = guided.goal(accuracy[known])
    noise = (np.exp(process.theta[-1]) + gaussian_process.JITTER) * np.eye(len(known))
    gain = kernel(rest, known) @ np.linalg.inv(kernel(known, known) + noise)
    covariance = kernel(rest, rest) - gain @ kernel(known, rest)
    expected = target.mean() + gain @ (target - target.mean())
    np.testing.assert_allclose(mean, expected, atol=1e-6)
    np.testing.assert_allclose(mean, process.predict([g[rest] for g in groups]))
    np.testing.assert_allclose(deviation, target.std() * np.sqrt(np.diag(covariance)), rtol=1e-4)


def test_goal_keeps_the_order_and_puts_failures_last():
    accuracy = np.array([50.0, np.nan, 90.0, 10.0, 70.0, -np.inf])
    goal = guided.goal(accuracy)
    assert goal[2] > goal[4] > goal[0] > goal[3] > goal[1] and goal[1] == goal[5]
    assert np.isfinite(goal).all()
    assert (guided.goal(np.full(4, 3.0)) == 0).all() and (guided.goal(np.full(4, np.nan)) == 0).all()


def test_the_first_are_promising_or_far_apart(groups):
    ranking = -np.arange(120.0)
    chosen = guided.first(groups, ranking, 10, np.random.default_rng(0))
    assert len(set(chosen)) == 10
    promising = int(np.ceil(guided.PROMISING * 120))
    assert all(i < promising for i in chosen[:5]) and max(chosen[5:]) > promising
    outlier = [g.copy() for g in groups]
    outlier[0][77] = 50
    assert guided.first(outlier, ranking, 10, np.random.default_rng(0))[5] == 77
    assert sorted(guided.first([g[:4] for g in groups], ranking[:4], 10, np.random.default_rng(0))) == [0, 1, 2, 3]


def test_proposals_are_new_and_differ(groups, accuracy):
    known = list(range(20))
    twins = [np.vstack([g, g]) for g in groups]  # candidate i + 120 is the same as i
    proposed = guided.propose(twins, known, accuracy[known], 15, np.random.default_rng(3))
    assert len({i % 120 for i in proposed}) == 15 and not set(proposed) & set(known)
    assert guided.propose(twins, known, accuracy[known], 4, np.random.default_rng(3)) == proposed[:4]


def test_proposals_end_with_the_candidates(groups, accuracy):
    known = list(range(115))
    proposed = guided.propose(groups, known, accuracy[known], 10, np.random.default_rng(0))
    assert sorted(proposed) == [115, 116, 117, 118, 119]


@pytest.mark.parametrize("value", [5.0, np.nan])
def test_equal_labels_and_failures_still_give_proposals(groups, value):
    known = list(range(10))
    assert len(set(guided.propose(groups, known, np.full(10, value), 5, np.random.default_rng(0)))) == 5


def test_a_candidate_may_be_labelled_twice(groups, accuracy):
    known = [*range(20), 3, 3]
    mean, deviation = guided.surrogate(groups, known, accuracy[known]).posterior(groups)
    assert np.isfinite(mean).all() and (deviation >= 0).all()


# -- simulation --


def test_every_method_labels_different_networks(pool, monkeypatch):
    orders = {}
    monkeypatch.setattr("libranas.search.simulate.best_so_far", lambda pool, order: orders.setdefault(name, order))
    for name in set(METHODS) - {"predictor"}:
        METHODS[name](pool, 60, 5)
        assert len(orders[name]) == len(set(orders[name])) == 60, name


def test_best_so_far_is_the_running_maximum(pool):
    order = np.random.default_rng(0).permutation(120)[:50]
    found = best_so_far(pool, order)
    np.testing.assert_array_equal(pool.accuracy_N[found], np.maximum.accumulate(pool.accuracy_N[order]))


def test_random_search_has_the_expected_rank():
    """The best of k out of n has rank (n + 1) / (k + 1) in the mean."""
    accuracy = np.random.default_rng(0).normal(size=200)
    pool = Pool(accuracy, Sample(pd.DataFrame({"s": accuracy}), pd.Series(np.zeros(200))))
    ranks = [
        (accuracy > accuracy[METHODS["random"](pool, 9, seed)[-1]]).sum() + 1 for seed in range(400)
    ]  # standard deviation of one: 18
    assert np.mean(ranks) == pytest.approx(201 / 10, abs=3)


def test_simulate_gives_a_row_for_each_method_and_point(pool):
    result = simulate(pool, None, 32, 2, seed=1)
    assert list(result.columns) == ["method", "labels", "runs", "regret", "regret_low", "regret_high", "rank"]
    assert list(result["labels"][:4]) == [10, 20, 30, 32] and set(result["method"]) == set(METHODS)
    for _, rows in result[result["method"] != "predictor"].groupby("method"):
        assert rows["regret"].is_monotonic_decreasing and rows["rank"].is_monotonic_decreasing
    assert (result["regret"] >= 0).all() and (result["rank"] >= 1).all()
    again = simulate(pool, ["guided", "random"], 32, 2, seed=1)
    pd.testing.assert_frame_equal(result[result["method"].isin(["guided", "random"])].reset_index(drop=True), again)
    by = result.set_index(["method", "labels"])["regret"]
    assert by["guided", 20] < by["random", 32], "the table is easy"


def test_all_labels_find_the_best(pool):
    result = simulate(pool, ["guided", "random", "ageing"], 120, 1)
    assert (result.loc[result["labels"] == 120, "regret"] == 0).all() and result["regret_low"].isna().all()


@pytest.mark.parametrize(
    "methods, labels, message",
    [(["guided"], 121, "has 120 different networks"), (["gided"], 10, "no method 'gided'")],
)
def test_what_cannot_be_simulated(pool, methods, labels, message):
    with pytest.raises(LibranasError, match=message):
        simulate(pool, methods, labels, 1)


def test_features_need_features(accuracy, groups):
    table = frame(accuracy, groups)
    bare = Pool(accuracy, Sample(table[["s0"]], pd.Series(0.0, table.index)))
    with pytest.raises(LibranasError, match="has none"):
        simulate(bare, ["features"], 10, 1)
    assert "features" not in set(simulate(bare, None, 10, 1)["method"])


# -- tables --


def test_read_pool_takes_any_table(tmp_path, accuracy, groups):
    table = frame(accuracy, groups)
    table["accuracy"] = [f"{a:.3f} %" for a in accuracy]
    table["note"] = "text"
    table.loc[3, "s1"] = np.nan
    table.to_csv(tmp_path / "mine.csv", index=False)
    pool = read_pool(tmp_path / "mine.csv", features=["f0", "f1"])
    np.testing.assert_allclose(pool.accuracy_N, accuracy, atol=1e-3)
    assert list(pool.sample.feature_AF) == ["f0", "f1"]
    assert list(pool.sample.score_AP) == ["s0", "s1", "s2", "f2", "f3", "f4"]
    table.drop(columns=["arch", "note"]).to_csv(tmp_path / "unnamed.csv", index=False)
    assert len(read_pool(tmp_path / "unnamed.csv")) == 120


def test_read_pool_joins_equal_networks_of_a_known_space(tmp_path):
    """Without an operation that reads it, what leads to a node does not matter."""
    rows = ["(0, 0, 0, 0, 0, 0)", "(2, 2, 2, 2, 2, 2)", "(1, 1, 0, 1, 1, 1)", "(2, 1, 0, 1, 1, 1)"]
    pd.DataFrame({"arch": rows, "task": [1.0, 2.0, 3.0, 5.0]}).to_csv(tmp_path / "nasbench201.csv", index=False)
    pool = read_pool(tmp_path / "nasbench201.csv", "task")
    assert sorted(pool.accuracy_N) == [1.0, 2.0, 4.0]
    assert list(pool.sample.score_AP) == ["params", "flops"] and pool.sample.feature_AF.notna().all().all()


@pytest.mark.parametrize(
    "change, arguments, message",
    [
        (lambda t: t.drop(columns="accuracy"), {}, "no column accuracy"),
        (lambda t: t, {"accuracy": "top1"}, "no column top1"),
        (lambda t: t, {"features": ["f0", "g"]}, "no column g"),
        (lambda t: t.assign(accuracy=t["accuracy"].where(t.index != 4)), {}, "accuracy of net 4 is nan"),
        (lambda t: t.assign(arch="same"), {}, "same comes twice"),
        (lambda t: t[["arch", "accuracy"]], {}, "no column of numbers besides accuracy"),
        (lambda t: t.iloc[:0], {}, "no rows"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, accuracy, groups, change, arguments, message):
    change(frame(accuracy, groups)).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(LibranasError, match=message):
        read_pool(tmp_path / "t.csv", **arguments)


def test_files_that_are_no_tables(tmp_path):
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    (tmp_path / "empty.csv").write_text("")
    for name, message in (("none.csv", "does not exist"), ("binary.csv", "not a CSV"), ("empty.csv", "not a CSV")):
        with pytest.raises(LibranasError, match=message):
            read_pool(tmp_path / name)


def test_command(tmp_path, accuracy, groups, capsys):
    frame(accuracy, groups).to_csv(tmp_path / "t.csv", index=False)
    options = ["--labels", "20", "--runs", "2", "--methods", "guided,random", "--output", str(tmp_path / "out.csv")]
    assert main(["simulate", str(tmp_path / "t.csv"), *options]) == 0
    shown, written = capsys.readouterr().out, pd.read_csv(tmp_path / "out.csv")
    assert "120 networks" in shown and list(written["labels"]) == [10, 20, 10, 20]
    assert (tmp_path / "out.svg").read_text().startswith("<svg")
    assert main(["simulate", str(tmp_path / "t.csv"), "--labels", "1000"]) == 2
    assert "120 different networks" in capsys.readouterr().err


# -- the accuracy that is expected --


def test_expected_accuracy_smooths_single_trainings(groups, accuracy):
    """A network whose training was lucky is expected to have less than it reached."""
    known = list(range(60))
    true = 1 / (1 + np.exp(-(accuracy - 80) / 5))
    seen = true[known].copy()
    lucky = int(np.argsort(seen)[20])
    seen[lucky] = 0.99
    expected = guided.expected(groups, known, seen)
    assert expected.shape == (120,) and (expected > 0).all() and (expected < 1).all()
    assert true[lucky] < expected[lucky] < 0.99
    assert np.corrcoef(expected[60:], true[60:])[0, 1] > 0.6


def test_long_trainings_correct_short_ones(groups):
    """Where the short training ranks the wrong way round, a few long ones turn the ranking."""
    x = groups[0][:, 0]
    long_accuracy = 1 / (1 + np.exp(-x))
    known, long = list(range(60)), [*range(0, 60, 5)]
    agreeing = guided.expected(groups, known, long_accuracy[known] * 0.8, long, long_accuracy[long])
    opposed = guided.expected(groups, known, 0.8 - long_accuracy[known] * 0.7, long, long_accuracy[long])
    assert np.corrcoef(agreeing, long_accuracy)[0, 1] > 0.95
    assert np.corrcoef(opposed[long], long_accuracy[long])[0, 1] > 0.8
    assert abs(agreeing.mean() - long_accuracy.mean()) < 0.05, "the level is that of the long training"


def test_expected_accuracy_is_finite_at_the_ends(groups):
    known = list(range(6))
    expected = guided.expected(groups, known, np.array([0.0, 1.0, 1.0, np.nan, 0.5, 0.5]), [1, 2], np.array([1.0, 1.0]))
    assert np.isfinite(expected).all()


def test_proposals_spread_along_the_front(groups, accuracy):
    """With a second objective small networks are proposed too; each proposal loses least for some weights."""
    known, size = list(range(30)), 1e5 * np.exp(0.5 * groups[0][:, 0])  # the accurate ones are large
    alone = guided.propose(groups, known, accuracy[known], 20, np.random.default_rng(0))
    both = guided.propose(groups, known, accuracy[known], 20, np.random.default_rng(0), np.log(size)[:, None])
    assert len(set(both)) == 20 and not set(both) & set(known)
    assert np.median(size[both]) < np.median(size[alone])
    assert size[both].min() < np.quantile(size, 0.1) and accuracy[both].max() > np.quantile(accuracy, 0.9)
