"""Combiners: fitted once, one value an architecture whatever the others are; learners find what proxies cannot show."""

import dataclasses
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from libranas.core.errors import LibranasError
from libranas.core.stats import spearman
from libranas.predictors import gaussian_process
from libranas.predictors.base import Calibration, Sample
from libranas.predictors.encoder import Encoder
from libranas.predictors.label_free import consensus_of
from libranas.predictors.learners import Trees
from libranas.predictors.libra import log_rank
from libranas.predictors.ranks import Fractions
from libranas.predictors.registry import COMBINERS

#: Proxies that single combiners need, beside those of the tests.
NEEDED = sorted({c for combiner in COMBINERS.values() for c in combiner.columns} - {"features"})
FAST = sorted(set(COMBINERS) - {"stack"})


def sample(n=120, seed=0):
    """Accuracy is made of four traits: proxies see two, features one, nothing the last."""
    rng = np.random.default_rng(seed)
    trait = rng.normal(size=(4, n))
    ids = [f"a{i:03d}" for i in range(n)]
    scores = pd.DataFrame({name: rng.normal(size=n) for name in (*NEEDED, "noise")}, ids)
    scores["nwot"] = trait[0] + 0.3 * rng.normal(size=n)
    scores["snip"] = -trait[1] + 0.3 * rng.normal(size=n)
    depth = trait[2] + 0.3 * rng.normal(size=n)
    features = pd.DataFrame({"kind": (trait[2] > 0).astype(float), "depth": depth, "one": 1.0}, ids)
    params = pd.Series(np.exp(rng.normal(size=n)), ids)
    accuracy = pd.Series(trait[:3].sum(axis=0) + 0.3 * trait[3], ids)
    return Sample(scores, params, features), accuracy


def known_and_rest(count=40, seed=0):
    table, accuracy = sample(seed=seed)
    fit, rest = np.arange(count), np.arange(count, len(table))
    return Calibration(table.take(fit), accuracy.iloc[fit], table), table.take(rest), accuracy.iloc[rest]


@pytest.mark.parametrize("method", sorted(COMBINERS))
def test_a_value_does_not_depend_on_the_other_candidates(method):
    known, rest, _ = known_and_rest()
    predict = COMBINERS[method].fit(known, 3)
    together = predict(rest)
    assert together.shape == (len(rest),) and together.dtype == np.float64 and np.isfinite(together).all()
    for i in (0, 7):
        one = Sample.one(rest.score_AP.iloc[i], rest.params_A.iloc[i], rest.feature_AF.iloc[i])
        assert predict(one) == pytest.approx(together[[i]], abs=1e-9)
    np.testing.assert_array_equal(COMBINERS[method].fit(known, 3)(rest), together)  # and fitting repeats


def test_learners_use_proxies_and_features():
    known, rest, accuracy = known_and_rest()
    rho = {m: spearman(COMBINERS[m].fit(known, 0)(rest), accuracy) for m in COMBINERS}
    for method in ("ridge_ranks", "gp", "gp_weighted", "blend", "stack"):
        assert rho[method] > 0.75
    for method in ("lightgbm", "lambdarank", "forest", "extra_trees"):
        assert rho[method] > 0.6
    assert rho["blend"] > max(rho["blend_proxies"], rho["blend_features"]) + 0.1
    assert min(rho["blend_proxies"], rho["blend_features"]) > 0.3


def test_few_labels_lean_on_the_consensus(monkeypatch):
    """Labels are noise: with the consensus the blend follows it more, and the more so the fewer labels there are."""
    table, _ = sample()
    noise = pd.Series(np.random.default_rng(5).normal(size=len(table)), table.params_A.index)
    consensus = COMBINERS["consensus"].fit(Calibration(table.take(np.arange(0)), noise[:0], table), 0)(table)
    gain = []
    for count in (10, 80):
        known, agreement = Calibration(table.take(np.arange(count)), noise.iloc[:count], table), []
        for labels in (3, 0):
            monkeypatch.setattr("libranas.predictors.blend.CONSENSUS_LABELS", labels)
            agreement.append(spearman(COMBINERS["blend"].fit(known, 0)(table), consensus))
        gain.append(agreement[0] - agreement[1])
    assert gain[0] > 2 * gain[1] > 0


def test_consensus_takes_what_there_is():
    known, rest, _ = known_and_rest()
    scores = rest.score_AP
    whole = COMBINERS["consensus"].fit(known, 0)(known.usual)
    assert spearman(whole, log_rank(known.usual.score_AP[["flops", "nwot"]])) == pytest.approx(1)
    for columns, like in ((["nwot", "snip"], scores["nwot"]), (["snip"], rest.params_A)):
        bare = dataclasses.replace(known, reference=Sample(known.usual.score_AP[columns], known.usual.params_A))
        values = COMBINERS["consensus"].fit(bare, 0)(Sample(scores[columns], rest.params_A))
        assert spearman(values, like) == pytest.approx(1)


def test_consensus_of_transformers_whose_patches_differ_reads_out():
    """By four proxies, where all are there and patches differ; transformers are known by a proxy of attention."""
    known, rest, _ = known_and_rest()
    rng, four = np.random.default_rng(7), ["params", "nngp", "jacov", "nwot"]

    def with_more(sample):
        more = {name: rng.normal(size=len(sample.params_A)) for name in ("nngp", "jacov", "dss")}
        patch = pd.DataFrame({"patch_size_log2": np.arange(len(sample.params_A)) % 3}, sample.params_A.index)
        return Sample(sample.score_AP.assign(params=sample.params_A, **more), sample.params_A, patch)

    usual, judged = with_more(known.usual), with_more(rest)
    ranking = COMBINERS["consensus"].fit(dataclasses.replace(known, reference=usual), 0)
    assert set(ranking.proxies) == set(four)
    assert consensus_of(usual) == (tuple(four), "the networks are transformers whose patches differ")
    alike = dataclasses.replace(usual, feature_AF=usual.feature_AF * 0, score_AP=usual.score_AP.drop(columns="params"))
    assert consensus_of(alike)[0] == ("flops", "nwot") and consensus_of(alike)[1].endswith("for all: params")
    blind = dataclasses.replace(usual, score_AP=usual.score_AP.drop(columns="nngp"))
    assert consensus_of(blind)[0] == ("params", "flops", "nwot") and consensus_of(blind)[1].endswith("for all: nngp")
    assert consensus_of(known.usual)[1].startswith("the networks are no transformers; missing")
    assert spearman(ranking(judged), log_rank(judged.score_AP[four])) > 0.98


def test_consensus_of_transformers_with_patches_of_one_size_is_their_size():
    """Known by a proxy of attention, or by the features of their space."""
    known, rest, _ = known_and_rest()
    scores, params = known.usual.score_AP.drop(columns="dss", errors="ignore"), known.usual.params_A
    attention = pd.Series(np.arange(len(params)) % 7.0, params.index)
    sizes = log_rank(rest.score_AP.assign(params=rest.params_A)[["params", "flops", "nwot"]])
    with_size = scores.assign(params=params)
    for usual, size in (
        (Sample(with_size.assign(dss=attention), params), True),
        (Sample(with_size, params, pd.DataFrame({"num_heads_mean": attention})), True),
        (Sample(with_size.assign(dss=np.nan), params), False),
    ):
        ranking = COMBINERS["consensus"].fit(dataclasses.replace(known, reference=usual), 0)
        judged = Sample(rest.score_AP.assign(params=rest.params_A), rest.params_A)
        assert (spearman(ranking(judged), sizes) > 0.98) == size
    bare = Sample(scores[["snip"]].assign(dss=attention), params)
    ranking = COMBINERS["consensus"].fit(dataclasses.replace(known, reference=bare), 0)
    assert spearman(ranking(rest), rest.params_A) == pytest.approx(1)


def test_rank_sums_are_those_within_the_reference():
    known, _, _ = known_and_rest()
    table = known.usual
    for method, columns in (("az_nas", COMBINERS["az_nas"].columns), ("log_rank_all", table.score_AP.columns)):
        values = COMBINERS[method].fit(known, 0)(table)
        assert spearman(values, log_rank(table.score_AP[list(columns)])) == pytest.approx(1)
    values, columns = COMBINERS["te_nas"].fit(known, 0)(table), list(COMBINERS["te_nas"].columns)
    assert spearman(values.round(9), table.score_AP[columns].rank().sum(axis=1)) == pytest.approx(1)


def test_a_failed_proxy_ranks_last_and_hides_nothing():
    known, rest, _ = known_and_rest()
    known.usual.score_AP.loc[rest.score_AP.index[:5], "snip"] = np.nan
    table = known.usual.take(np.arange(40, 120))
    values = COMBINERS["log_rank_all"].fit(known, 0)(table)
    assert np.isfinite(values).all() and len(set(values[:5])) == 5
    intact = rest.score_AP.assign(snip=known.usual.score_AP["snip"].min())
    better = COMBINERS["log_rank_all"].fit(known, 0)(Sample(intact, rest.params_A))
    assert (values[:5] < better[:5]).all()


def test_fractions():
    fraction = Fractions([3.0, 1.0, 1.0, np.nan, 2.0, -np.inf, np.inf, 5.0])
    # three of eight failed: they share the lowest place
    np.testing.assert_allclose(fraction([np.nan, 0, 1, 1.5, 5, 9]), np.array([1.5, 3, 4, 5, 7.5, 8]) / 8)
    assert np.isfinite(fraction.normal([np.nan, -1e300, 1e300])).all()


def test_encoder_leaves_out_what_does_not_vary():
    known, _, _ = known_and_rest()
    known.usual.score_AP["same"] = 4.0
    encode = Encoder(known.usual)
    assert "same" not in encode.fractions and "params" in encode.fractions and encode.feature == ["kind", "depth"]
    scores, marks, numbers = encode(known.usual)
    for features in (marks, numbers):
        assert features.shape == (120, 1)
        np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(features.std(axis=0), 1)
    assert abs(scores.mean()) < 1e-12 and scores.std() == pytest.approx(1, abs=0.05)
    only_size = Encoder(known.usual, scores=False)
    assert list(only_size.fractions) == ["params"]
    bare = Sample(pd.DataFrame({"a": [1.0, 1.0]}), pd.Series([2.0, 2.0]))
    with pytest.raises(LibranasError, match="constant"):
        Encoder(bare)


def test_what_is_lacking_is_named():
    known, _, _ = known_and_rest()
    table = known.usual
    assert all(combiner.lacks(known) == () for combiner in COMBINERS.values())
    plain = dataclasses.replace(known, reference=Sample(table.score_AP[["flops", "ntk_cond"]], table.params_A))
    assert COMBINERS["az_nas"].lacks(plain) == ("az_expressivity", "az_progressivity", "az_trainability")
    assert COMBINERS["te_nas"].lacks(plain) == ("linear_regions",)
    assert COMBINERS["blend_features"].lacks(plain) == ("features",)
    constant = Sample(table.score_AP.assign(tcet=1.0), table.params_A)
    assert COMBINERS["tcet"].lacks(dataclasses.replace(known, reference=constant)) == ("tcet",)
    unlabelled = Calibration(table.take(np.arange(0)), pd.Series(dtype=float), table)
    assert {m for m in COMBINERS if COMBINERS[m].lacks(unlabelled) == ("labels",)} == {
        m for m in COMBINERS if COMBINERS[m].needs_labels
    }


def test_a_candidate_without_features_is_an_error():
    known, rest, _ = known_and_rest()
    predict = COMBINERS["gp"].fit(known, 0)
    with pytest.raises(LibranasError, match="depth"):
        predict(dataclasses.replace(rest, feature_AF=rest.feature_AF.drop(columns="depth")))
    with pytest.raises(LibranasError, match="kind"):
        predict(dataclasses.replace(rest, feature_AF=None))
    with pytest.raises(LibranasError, match="snip"):
        predict(dataclasses.replace(rest, score_AP=rest.score_AP.drop(columns="snip")))


@pytest.mark.parametrize("method", FAST)
def test_ten_labels_are_enough_and_ties_do_no_harm(method):
    known, rest, _ = known_and_rest(count=10)
    known = dataclasses.replace(known, accuracy_C=known.accuracy_C.round(0))
    assert np.isfinite(COMBINERS[method].fit(known, 1)(rest)).all()


# -- the Gaussian process -----------------------------------------------------------------------------------


def test_gaussian_process_learns_from_each_group():
    rng = np.random.default_rng(0)
    groups = [rng.normal(size=(60, 4)), rng.normal(size=(60, 3))]
    target = np.sin(2 * groups[0][:, 0]) + groups[1][:, 1] + 0.1 * rng.normal(size=60)
    process = gaussian_process.fit([g[:40] for g in groups], target[:40])
    predicted = process.predict([g[40:] for g in groups])
    assert np.corrcoef(predicted, target[40:])[0, 1] > 0.8
    # shift and scale of the targets are the predictions' shift and scale
    shifted = gaussian_process.fit([g[:40] for g in groups], 100 + 7 * target[:40]).predict([g[40:] for g in groups])
    np.testing.assert_allclose(shifted, 100 + 7 * predicted, rtol=1e-4)


def test_gaussian_process_is_the_textbook_one():
    """With scikit-learn's kernels at the fitted numbers: the same mean, and a mode of the same posterior."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 3))
    target = x[:, 0] + np.cos(2 * x[:, 1]) + 0.2 * rng.normal(size=50)
    process = gaussian_process.fit([x[:30]], target[:30])

    def textbook(theta):
        linear, matern, length, noise = np.exp(theta)
        kernel = (
            ConstantKernel(linear / 3) * DotProduct(1e-6)
            + ConstantKernel(matern) * Matern(length * np.sqrt(3), nu=1.5)
            + WhiteKernel(noise + gaussian_process.JITTER)
        )
        model = GaussianProcessRegressor(kernel, optimizer=None, normalize_y=True, alpha=1e-12)
        return model.fit(x[:30], target[:30])

    np.testing.assert_allclose(process.predict([x[30:]]), textbook(process.theta).predict(x[30:]), rtol=1e-6)
    gp = gaussian_process
    prior, spread = np.array([gp.LINEAR, gp.MATERN, gp.LENGTH, gp.NOISE]).T

    def posterior(theta):
        return textbook(theta).log_marginal_likelihood_value_ - 0.5 * (((theta - prior) / spread) ** 2).sum()

    best = posterior(process.theta)
    for i in range(4):
        for step in (-0.1, 0.1):
            assert posterior(process.theta + step * np.eye(4)[i]) < best


def test_torch_is_not_imported():
    code = """
import sys, numpy as np, pandas as pd
from libranas.predictors.registry import COMBINERS
from libranas.predictors.base import Calibration, Sample
rng = np.random.default_rng(0)
s = Sample(pd.DataFrame(rng.normal(size=(20, 3)), columns=list("abc")), pd.Series(rng.random(20)))
known = Calibration(s, pd.Series(rng.random(20)))
for c in COMBINERS.values():
    if not c.lacks(known): c.fit(known, 0)(s)
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_trees_predict_what_their_forest_does():
    from sklearn.ensemble import RandomForestRegressor

    rng = np.random.default_rng(0)
    x, y, others = rng.normal(size=(40, 5)), rng.normal(size=40), rng.normal(size=(30, 5))
    forest = RandomForestRegressor(20, random_state=1).fit(x, y)
    ours = Trees.of(forest)
    assert (ours.predict([others[:, :2], others[:, 2:]]) == forest.predict(others)).all()
    assert (np.concatenate([ours.predict([row[None]]) for row in others]) == forest.predict(others)).all()
