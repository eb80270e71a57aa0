"""The protocol: nothing leaks from evaluation to fitting, labels are counted truly, only ranks matter."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from libranas.core.errors import LibranasError
from libranas.core.stats import kendall, precision_at, spearman
from libranas.predictors.base import Calibration, Sample
from libranas.predictors.evaluation import MEASURES, Evaluation, evaluate, parted, proxy_table
from libranas.predictors.registry import COMBINERS
from libranas.predictors.selection import choose_and_judge, fitted

LABEL_FREE = {"params", "flops", "log_rank_all", "az_nas", "te_nas", "tcet", "consensus"}
#: Methods that need no proxies or features that the table below does not have.
POSSIBLE = sorted(m for m in COMBINERS if not COMBINERS[m].columns)
#: Those that take more than a fraction of a second to fit.
SLOW = {"stack", "blend", "blend_proxies", "blend_features"}


@pytest.fixture
def fast():
    """Leaves the slow methods out of the protocol."""
    slow = [COMBINERS[name] for name in SLOW]
    for name in SLOW:
        COMBINERS.remove(name)
    yield
    for combiner in slow:
        COMBINERS.add(combiner)


def table(n=90, seed=0):
    """Accuracy is the sum of three hidden traits; proxies see one each, or nothing."""
    rng = np.random.default_rng(seed)
    trait = rng.normal(size=(3, n))
    columns = {f"trait{i}": trait[i] + 0.3 * rng.normal(size=n) for i in range(3)}
    columns |= {"against": -trait[0] + 0.3 * rng.normal(size=n), "noise": rng.normal(size=n)}
    ids = [f"a{i:03d}" for i in range(n)]
    params = np.exp(trait[2] + rng.normal(size=n))
    columns["params"] = params
    return pd.DataFrame(columns, index=ids), pd.Series(trait.sum(axis=0), ids), pd.Series(params, ids)


@pytest.fixture
def spied():
    """Records, for every method, the last labelled and judged architectures, and the prediction."""
    seen, all_of_them = {}, dict(COMBINERS)
    for name, combiner in all_of_them.items():

        def spy(known, seed, name=name, inner=combiner.fit):
            predict = inner(known, seed)

            def predictor(sample):
                seen[name] = set(known.labelled.score_AP.index), set(sample.score_AP.index), predict(sample)
                return seen[name][2]

            return predictor

        COMBINERS.remove(name)
        COMBINERS.add(dataclasses.replace(combiner, fit=spy))
    yield seen
    for name, combiner in all_of_them.items():
        COMBINERS.remove(name)
        COMBINERS.add(combiner)


def test_a_prediction_sees_the_labels_that_it_needs_and_no_accuracy_that_it_is_judged_on(spied):
    scores, accuracy, params = table()
    first = evaluate(scores, accuracy, params, calibration=40, splits=1).summary.set_index("method")
    before = dict(spied)
    fit, rest, _ = before["z1"]
    assert len(fit) == 40 and not fit & rest and fit | rest == set(scores.index)

    def unchanged(falsified):
        """Methods whose predictions are the same with these accuracies."""
        again = evaluate(scores, falsified, params, calibration=40, splits=1).summary.set_index("method")
        assert not again["spearman"].equals(first["spearman"])  # the judgement did change
        return {m for m in POSSIBLE if np.array_equal(spied[m][2], before[m][2])}

    falsified = accuracy.copy()
    falsified[sorted(rest)] = np.random.default_rng(1).normal(size=len(rest))
    assert unchanged(falsified) == set(POSSIBLE)
    falsified = accuracy.copy()
    falsified[sorted(fit)] = scores.loc[sorted(fit), "noise"]  # that only `noise` agrees with
    assert unchanged(falsified) == LABEL_FREE & set(POSSIBLE)
    assert {m for m in COMBINERS if not COMBINERS[m].needs_labels} == LABEL_FREE
    assert set(first.index[first["labels"] == 0]) == LABEL_FREE
    assert (first.loc[first["needs_labels"], "labels"] == 40).all()


def test_no_network_is_judged_of_which_an_equal_one_was_labelled(spied):
    scores, accuracy, params = table()
    network = pd.Series(np.minimum(np.arange(90), 60).astype(str), scores.index)  # thirty are one network
    shuffled, methods = network.sample(frac=1, random_state=0), ["params", "z1"]
    result = evaluate(scores, accuracy, params, 20, splits=8, methods=methods, network_A=shuffled)
    fit, rest, _ = spied["z1"]
    assert len(fit) == network[list(fit)].nunique() == 20 and not set(network[list(fit)]) & set(network[list(rest)])
    assert set(network[list(fit)]) | set(network[list(rest)]) == set(network)
    assert result.summary["n_evaluation"].between(41, 70).all()
    with pytest.raises(LibranasError, match="55 of 61 architectures"):
        evaluate(scores, accuracy, params, 55, network_A=network)


#: A config section ``libra``.
SETTINGS = {"mode": "corrected", "combiner": "libra_corrected", "splits": 1, "window": 0.1, "duplicate": 0.98}


def test_libra_chooses_on_one_architecture_of_a_network():
    scores, accuracy, params = table()
    network = pd.Series(np.minimum(np.arange(90), 60).astype(str), scores.index)
    settings = {**SETTINGS, "calibration": 20, "methods": ["z1"]}
    choice = choose_and_judge(scores, accuracy, params, settings, 0, network_A=network).choice
    assert network[choice["calibration"]].is_unique and choice["held_out"]["n"] in (41, 70)


def test_networks_are_drawn_alike_however_often_a_table_holds_them():
    network_A = np.minimum(np.arange(90), 60)
    drawn = np.zeros(90)
    for seed in range(2000):
        fit, rest = parted(np.random.default_rng(seed), 20, network_A)
        drawn[fit] += 1
    expected = 2000 * 20 / 61
    assert abs(drawn[60:].sum() - expected) < 5 * np.sqrt(expected) and (drawn[60:] > 0).all()
    fit, rest = parted(np.random.default_rng(3), 20, np.arange(90))
    assert set(fit) == set(np.random.default_rng(3).permutation(90)[:20]) and set(fit) | set(rest) == set(range(90))


@pytest.mark.parametrize("method", sorted(set(POSSIBLE) - {"libra_literal"}))
def test_only_ranks_matter(method):
    """All but the published estimator (equal-width bins) are blind to monotone transforms of every input."""
    scores, accuracy, params = table()
    bent = scores.assign(trait0=np.exp(scores["trait0"]), noise=scores["noise"] ** 3, params=np.log(params))
    values = []
    for s, a, p in ((scores, accuracy, params), (bent, np.exp(accuracy), np.log(params))):
        known = Calibration(Sample(s.iloc[:40], p.iloc[:40]), a.iloc[:40], Sample(s, p))
        values.append(COMBINERS[method].fit(known, 5)(Sample(s.iloc[40:], p.iloc[40:])))
    assert values[0].shape == (50,)
    assert spearman(*values) == pytest.approx(1, abs=1e-9)


def test_order_of_rows_and_columns_does_not_matter(fast):
    scores, accuracy, params = table()
    rng = np.random.default_rng(0)
    rows = rng.permutation(scores.index)
    shuffled = scores.loc[rows, rng.permutation(scores.columns)]
    plain = evaluate(scores, accuracy, params, 30, splits=1, seed=4)
    other = evaluate(shuffled, accuracy[rng.permutation(rows)], params[rows], 30, splits=1, seed=4)
    pd.testing.assert_frame_equal(plain.summary, other.summary, check_exact=True)
    pd.testing.assert_frame_equal(plain.per_split, other.per_split, check_exact=True)
    assert not evaluate(scores, accuracy, params, 30, splits=1, seed=5).summary.equals(plain.summary)


def test_learners_find_what_one_proxy_cannot_show():
    scores, accuracy, params = table(n=200)
    methods = ["z1", "ridge_ranks", "lightgbm", "blend"]
    summary = evaluate(scores, accuracy, params, calibration=80, splits=2, methods=methods).summary
    rho = summary.set_index("method")["spearman"]
    assert rho["z1"] < 0.7  # one trait of three
    assert rho["ridge_ranks"] > 0.85 and rho["lightgbm"] > 0.75 and rho["blend"] > 0.85


def test_failed_scores_are_predicted_low_not_dropped(fast):
    scores, accuracy, params = table()
    bad = scores.index[accuracy < accuracy.quantile(0.2)]
    scores["trait0"] = scores["trait0"].astype(float)
    scores.loc[bad, ["trait0", "trait1"]] = np.nan
    result = evaluate(scores, accuracy, params, 40, splits=2)
    assert np.isfinite(result.per_split[list(MEASURES)]).all(axis=None)
    assert (result.summary["n_evaluation"] == 50).all()


def test_summary_follows_from_the_splits():
    scores, accuracy, params = table()
    result = evaluate(scores, accuracy, params, 40, splits=5, methods=["params", "z1"])
    assert isinstance(result, Evaluation)
    assert list(result.summary["method"]) == ["params", "z1"] and len(result.per_split) == 10
    for row in result.summary.itertuples():
        part = result.per_split.query("method == @row.method")
        assert row.spearman == pytest.approx(part["spearman"].mean())
        for measure in MEASURES:
            assert getattr(row, measure) == pytest.approx(part[measure].mean())
        assert row.regret >= 0 and row.lacks == ""
        assert part["spearman"].min() <= row.low <= row.spearman <= row.high <= part["spearman"].max()
        assert (row.n_calibration, row.n_evaluation, row.splits) == (40, 50, 5)


def test_regret_and_correlation_of_a_known_ranking(spied):
    scores, accuracy, params = table()
    result = evaluate(scores, accuracy, params, 40, splits=1, methods=["params"]).per_split.iloc[0]
    rest = sorted(spied["params"][1])
    truth, size = accuracy[rest], params[rest]
    assert result["spearman"] == pytest.approx(spearman(size, truth))
    assert result["kendall"] == pytest.approx(kendall(size, truth))
    assert result["regret"] == pytest.approx(truth.max() - truth[size.idxmax()])
    assert result["p1"] == precision_at(size, truth, 0.01) and result["p5"] == precision_at(size, truth, 0.05)


def test_regret_of_tied_tops_is_their_mean():
    scores, accuracy, params = table()
    params[:] = 1.0
    result = evaluate(scores, accuracy, params, 40, splits=1, methods=["params"])
    assert np.isnan(result.summary.loc[0, "spearman"])  # cannot rank: said, not dropped
    assert result.summary.loc[0, "regret"] > 1  # the mean architecture, far from the best


def test_splits_do_not_depend_on_the_methods_or_their_number():
    scores, accuracy, params = table()
    many = evaluate(scores, accuracy, params, 40, splits=3, methods=["z1", "lightgbm"]).per_split
    one = evaluate(scores, accuracy, params, 40, splits=2, methods=["lightgbm"]).per_split
    kept = many.query("method == 'lightgbm' and split < 2").reset_index(drop=True)
    pd.testing.assert_frame_equal(one, kept, check_exact=True)


def test_several_numbers_of_labels_and_none():
    scores, accuracy, params = table()
    several = evaluate(scores, accuracy, params, [0, 20, 40], splits=2, methods=["params", "z1"])
    one = evaluate(scores, accuracy, params, 40, splits=2, methods=["params", "z1"])
    kept = several.per_split.query("n_calibration == 40").reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, one.per_split, check_exact=True)
    none = several.summary.query("n_calibration == 0").set_index("method")
    assert none.loc["params", "spearman"] == pytest.approx(spearman(params, accuracy))
    assert none.loc["params", "n_evaluation"] == 90 and none.loc["params", "splits"] == 1
    assert none.loc["z1", "lacks"] == "labels" and np.isnan(none.loc["z1", "spearman"])
    assert (several.summary["n_calibration"] == [0, 0, 20, 20, 40, 40]).all()


def test_a_method_that_lacks_its_proxies_is_said():
    scores, accuracy, params = table()
    result = evaluate(scores, accuracy, params, 30, splits=1)
    assert list(result.summary["method"]) == list(COMBINERS)
    summary = result.summary.set_index("method")
    assert set(summary.index[summary["lacks"] == ""]) == set(POSSIBLE) == set(result.per_split["method"])
    assert summary.loc["te_nas", "lacks"] == "ntk_cond, linear_regions" and summary.loc["te_nas", "splits"] == 0
    assert summary.loc[summary["lacks"] != "", [*MEASURES, "low", "high"]].isna().all(axis=None)


def test_features_reach_the_learners():
    scores, accuracy, params = table()
    scores = scores[["noise", "trait0", "against"]]
    features = pd.DataFrame({"sum": accuracy + 0.3}, accuracy.index).sample(frac=1, random_state=0)
    methods = ["ridge_ranks", "z1", "blend_features"]
    plain = evaluate(scores, accuracy, params, 40, splits=1, methods=methods)
    told = evaluate(scores, accuracy, params, 40, splits=1, methods=methods, feature_AF=features)
    plain, told = (r.summary.set_index("method")["spearman"] for r in (plain, told))
    assert told["ridge_ranks"] > 0.95 > plain["ridge_ranks"] + 0.1 and told["z1"] == plain["z1"]
    assert np.isnan(plain["blend_features"]) and told["blend_features"] > 0.9
    with pytest.raises(LibranasError, match="no row, or several"):
        evaluate(scores, accuracy, params, 40, feature_AF=features.iloc[1:])
    with pytest.raises(LibranasError, match="not finite"):
        evaluate(scores, accuracy, params, 40, feature_AF=features.replace(features.iloc[0, 0], np.nan))


def test_choose_and_judge(fast):
    scores, accuracy, params = table()
    settings = {**SETTINGS, "calibration": 40}
    features = pd.DataFrame({"sum": accuracy}, accuracy.index)
    labelled = accuracy.iloc[::-1].iloc[:80]
    verdict = choose_and_judge(scores, labelled, params, settings, 3, features)
    assert len(verdict.choice["calibration"]) == 40 and verdict.choice["held_out"]["n"] == 40
    assert set(verdict.choice["calibration"]) <= set(labelled.index)
    assert (verdict.methods["n_evaluation"] == 40).all() and list(verdict.methods["method"]) == list(COMBINERS)
    others = labelled.drop(verdict.choice["calibration"])
    ranking = verdict.predictor(Sample(scores.loc[others.index], params[others.index], features.loc[others.index]))
    assert spearman(ranking, others) == verdict.choice["combiner"]["held_out"]["spearman"]
    assert verdict.choice["combiner"]["proxies"] == list(verdict.predictor.proxies)
    settings["methods"] = ["consensus", "ridge_ranks"]
    several = choose_and_judge(scores, labelled, params, {**settings, "calibration": [0, 20, 40]}, 3, features)
    assert several.choice == verdict.choice
    last = several.methods.query("n_calibration == 40").set_index("method")
    pd.testing.assert_frame_equal(last, verdict.methods.set_index("method").loc[last.index], check_exact=True)


def test_the_judged_combiner_sees_features_in_the_order_of_the_search(fast):
    """Trees draw columns by position, so that other orders give other predictors."""
    scores, accuracy, params = table(n=60)
    features = pd.DataFrame({"z": accuracy.rank(), "a": params, "m": scores["noise"]})
    settings = {**SETTINGS, "combiner": "extra_trees", "calibration": 40, "methods": ["params"]}
    verdict = choose_and_judge(scores, accuracy, params, settings, 3, features)
    sample = Sample(scores.sort_index(axis=1), params, features)
    expected = fitted(sample, accuracy, verdict.choice["calibration"], "extra_trees", 3)
    np.testing.assert_array_equal(verdict.predictor(sample), expected(sample))


def test_proxy_table():
    scores, accuracy, params = table()
    scores.loc[scores.index[:3], "noise"] = [np.nan, np.inf, -np.inf]
    result = proxy_table(scores, accuracy, params)
    assert list(result["spearman"]) == sorted(result["spearman"], reverse=True)
    result = result.set_index("proxy")
    assert (result["n"] == 90).all()
    assert result.loc["noise", "non_finite"] == 3 and result["non_finite"].sum() == 3
    assert result.loc["against", "spearman"] < 0 and result.loc["against", "kendall"] < 0
    assert np.isnan(result.loc["params", "partial_given_params"])
    # trait2 is seen through size: less of it is left given size; trait1 has nothing to do with size
    drop = result["spearman"] - result["partial_given_params"]
    assert drop["trait2"] > 0.1 > abs(drop["trait1"])
    assert ((result["low"] < result["spearman"]) & (result["spearman"] < result["high"])).all()
    assert result.loc["trait1", "spearman"] == pytest.approx(spearman(scores["trait1"], accuracy))


def test_errors():
    scores, accuracy, params = table(n=30)
    with pytest.raises(LibranasError, match="Unknown combiner 'boosting'"):
        evaluate(scores, accuracy, params, 15, methods=["boosting"])
    for calibration in (9, 21, -1):
        with pytest.raises(LibranasError, match=f"{calibration} of 30"):
            evaluate(scores, accuracy, params, calibration)
    with pytest.raises(LibranasError, match="do not match"):
        evaluate(scores, accuracy.iloc[1:], params, 15)


def test_registry():
    assert all(name == c.name and c.title for name, c in COMBINERS.items())
    assert list(COMBINERS) == [*sorted(LABEL_FREE), *sorted(set(COMBINERS) - LABEL_FREE)]
    with pytest.raises(dataclasses.FrozenInstanceError):
        COMBINERS["z1"].needs_labels = False
