"""LIBRA: the estimator's bias, the choices and their invariances, errors, and the fitness of a search."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libranas.core.errors import LibranasError
from libranas.predictors import information_gain as gain
from libranas.predictors.base import Sample
from libranas.predictors.libra import choose, log_rank
from libranas.predictors.ranks import ReferenceRanks


def table(n=80, seed=0, **more):
    """Scores of six proxies, accuracies and sizes of n made-up architectures."""
    rng = np.random.default_rng(seed)
    accuracy = rng.normal(size=n)
    noise = lambda scale: scale * rng.normal(size=n)  # noqa: E731
    size = 0.6 * accuracy + noise(0.8)
    columns = {
        "best": accuracy + noise(0.4),
        "good": accuracy + noise(0.5),
        "fair": accuracy + noise(0.55) + 0.2 * size,
        "size": size,
        "noise": noise(1),
        "wrong": -accuracy + noise(0.5),
        **more,
    }
    ids = [f"a{i:04d}" for i in range(n)]
    return pd.DataFrame(columns, index=ids), pd.Series(accuracy, ids), pd.Series(np.exp(size), ids)


# ------------------------------------------------------------------------------------------ the estimator


def test_entropy_of_known_distributions():
    a, b = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    assert gain.entropy(a) == 1 and gain.entropy(a, b) == 2 and gain.entropy(a, a) == 1
    assert gain.entropy(np.zeros(5, dtype=int)) == 0
    assert gain.information_gain(a ^ b, a, b) == 1  # exclusive or: b tells all, but only with a


def test_bins_of_edge_cases():
    np.testing.assert_array_equal(gain.equal_width([0.0, 1.0, 2.0, 4.0], 2), [0, 0, 1, 1])
    np.testing.assert_array_equal(gain.quantile([1.0, 2.0, 3.0, 100.0], 2), [0, 0, 1, 1])
    for binned in (gain.equal_width, gain.quantile):
        assert len(set(binned(np.ones(7), 3))) == 1
        codes = binned([np.nan, 1.0, 2.0, 3.0], 3)  # a failure is in the lowest bin and stretches nothing
        assert codes[0] == codes.min() and len(set(codes[1:])) >= 2
    assert [gain.corrected_bins(n) for n in (20, 639, 640, 1249, 1250)] == [3, 3, 4, 4, 5]
    assert [gain.naslib_bins(n) for n in (200, 1000, 2000)] == [19, 24, 26]


def gains(estimate, n, repeats, seed=0):
    """Mean estimated gain of four kinds of proxies, given a z1 of correlation 0.8 with accuracy."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(repeats):
        y, e = rng.normal(size=n), rng.normal(size=(4, n))
        z1 = 0.8 * y + 0.6 * e[0]
        proxies = {
            "noise": e[1],
            "tail": np.exp(5 * e[2]),
            "useful": 0.75 * y + 0.66 * e[3],
            "copy": np.exp(z1),
        }
        rows.append({k: estimate(y, z1, z, rng) for k, z in proxies.items()})
    return pd.DataFrame(rows).mean()


def test_published_estimator_is_mostly_bias():
    def published(y, z1, z, _):
        return gain.information_gain(*(gain.equal_width(v, gain.naslib_bins(len(y))) for v in (y, z1, z)))

    mean = gains(published, n=1000, repeats=5)
    assert mean["noise"] > mean["useful"]  # noise looks as informative as a useful proxy
    assert mean["tail"] < 0.3 * mean["noise"]  # and less so if it has a heavy tail


@pytest.mark.parametrize("n", [60, 640])
def test_corrected_estimator_is_not(n):
    def corrected(y, z1, z, rng):
        codes = (gain.quantile(v, gain.corrected_bins(n)) for v in (y, z1, z))
        return gain.corrected_information_gain(*codes, permutations=20, rng=rng)

    mean = gains(corrected, n=n, repeats=30)
    assert abs(mean["noise"]) < 0.03 and abs(mean["tail"]) < 0.03
    assert mean["copy"] == pytest.approx(0, abs=1e-12)
    assert mean["useful"] > 0.1


def test_shuffling_keeps_the_relation_to_z1():
    """Given z1 the gain of any function of z1 is zero for every shuffle, not only on average."""
    rng = np.random.default_rng(0)
    y, z1 = rng.integers(0, 3, size=50), rng.integers(0, 4, size=50)
    found = gain.corrected_information_gain(y, z1, (z1 * 7) % 4, permutations=1, rng=rng)
    assert found == pytest.approx(0, abs=1e-12)


# ------------------------------------------------------------------------------------------- the choice


def test_literal_and_corrected_differ_where_they_should():
    scores, accuracy, params = table()
    scores["best_copy"] = np.exp(scores["best"])
    scores["params"] = params
    literal, corrected = (choose(scores, accuracy, params, mode) for mode in ("literal", "corrected"))
    assert literal.z1 == corrected.z1 == "best"  # the copy ties: the first name
    assert "best_copy" in literal.window and "best_copy" in corrected.window
    assert "best_copy" not in corrected.proxies
    assert any("Passed over" in r and "best_copy" in r for r in corrected.reasons)
    least = min(literal.window, key=literal.information_gain.get)
    most = max((p for p in corrected.window if p != "best_copy"), key=corrected.information_gain.get)
    assert literal.z2 == least and corrected.z2 == most
    assert corrected.z3 in corrected.window and corrected.z3 != "params"
    for choice in (literal, corrected):
        assert len(set(choice.proxies)) == 3
        for place, name in zip(("first", "second", "third"), choice.proxies, strict=True):
            assert any(r.startswith(f"{name} is {place}") for r in choice.reasons)
        json.dumps(dataclasses.asdict(choice), allow_nan=False)


def test_third_does_not_repeat_the_second():
    scores, accuracy, params = table()
    scores["good_copy"] = scores["good"] ** 3
    scores["fair_copy"] = scores["fair"] ** 3
    choice = choose(scores, accuracy, params, window=0.5)
    assert {p.removesuffix("_copy") for p in choice.proxies} == {"best", "good", "fair"}


def test_third_has_the_bias_of_accuracy():
    scores, accuracy, params = table()
    choice = choose(scores, accuracy, params, window=2.5)
    others = set(scores) - {choice.z1, choice.z2, "size"}
    gap = {p: abs(choice.bias[p] - choice.accuracy_bias) for p in others}
    assert choice.z3 == min(gap, key=gap.get)
    # size orders exactly as #params does: barred whatever its name
    assert choice.bias["size"] == pytest.approx(1) and choice.z3 != "size"
    assert choose(scores[["best", "good", "size"]], accuracy, params).z3 == "size"  # unless nothing is left


def test_third_is_not_size_itself_where_accuracy_follows_size():
    scores, accuracy, params = table()
    rng = np.random.default_rng(1)
    params = np.exp(accuracy + 0.3 * rng.normal(size=len(accuracy)))
    scores["size"] = np.log(params)
    literal = choose(scores.drop(columns="best"), accuracy, params, "literal")
    assert literal.z1 == "size"  # as the first it is a proxy like any other
    scores["best"] = accuracy + 0.2 * rng.normal(size=len(accuracy))
    options = {"ig_select": "min", "window": 2.5}
    literal, corrected = (choose(scores, accuracy, params, m, **options) for m in ("literal", "corrected"))
    assert literal.z1 == corrected.z1 == "best"
    assert literal.z3 == "size" and "size" not in corrected.proxies[1:]


def test_empty_window_takes_the_next_best_and_says_so():
    scores, accuracy, params = table()
    scores["best"] = accuracy
    for mode in ("literal", "corrected"):
        choice = choose(scores, accuracy, params, mode, window=0.01)
        rest = {p: r for p, r in choice.rho.items() if p != "best"}
        assert choice.window == () and choice.window_fallback
        assert choice.z2 == max(rest, key=rest.get)
        assert "next best" in choice.reasons[1]
    assert any("third place" in r for r in choice.reasons)


def test_a_constant_or_failing_proxy_is_left_out_aloud():
    scores, accuracy, params = table()
    scores["constant"], scores["failed"] = 1.0, np.nan
    choice = choose(scores, accuracy, params)
    assert "constant" not in choice.rho and "failed" not in choice.rho
    assert any("constant, failed" in r for r in choice.reasons)


@given(st.integers(0, 10_000), st.sampled_from(["literal", "corrected"]))
def test_order_of_rows_and_columns_does_not_matter(seed, mode):
    scores, accuracy, params = table(n=40, seed=seed)
    scores["twin"] = scores["best"]
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(scores.index), rng.permutation(scores.columns)
    shuffled = choose(scores.loc[rows, columns], accuracy[rng.permutation(rows)], params[rows], mode, seed=3)
    plain = choose(scores, accuracy, params, mode, seed=3)
    assert dataclasses.asdict(shuffled) == dataclasses.asdict(plain)


@given(st.integers(0, 10_000))
def test_corrected_mode_sees_only_ranks(seed):
    scores, accuracy, params = table(n=40, seed=seed)
    bent = scores.copy()
    bent["best"], bent["good"], bent["fair"] = np.exp(bent["best"]), bent["good"] ** 3, 5 * bent["fair"] - 7
    assert choose(bent, np.exp(accuracy), np.log(params)) == choose(scores, accuracy, params)


def test_a_gain_does_not_depend_on_the_other_proxies():
    scores, accuracy, params = table()
    few = choose(scores[["best", "good", "noise"]], accuracy, params).information_gain
    all_ = choose(scores, accuracy, params).information_gain
    assert few["good"] == all_["good"] and few["noise"] == all_["noise"]
    other_seed = choose(scores, accuracy, params, seed=1).information_gain
    assert other_seed["good"] != all_["good"]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s, a, p: (s, a, p, "other"), "mode 'other' is unknown"),
        (lambda s, a, p: (s.iloc[:9], a.iloc[:9], p.iloc[:9]), "10 or more architectures.*got 9"),
        (lambda s, a, p: (s[["best", "good"]], a, p), "chooses three proxies, got 2"),
        (lambda s, a, p: (s, a * 0, p), "accuracies are equal"),
        (lambda s, a, p: (s, a, p * 0), "numbers of parameters are equal"),
        (lambda s, a, p: (s, a.iloc[1:], p), "do not match, e.g. 'a0000'"),
        (lambda s, a, p: (s, a, pd.concat([p, p.iloc[:1]])), "do not match, e.g. 'a0000'"),
        (lambda s, a, p: (pd.concat([s, s.iloc[3:4]]), a, p), "architecture 'a0003' occurs more than once"),
        (lambda s, a, p: (s, a.where(a.index != "a0005"), p), "1 of the accuracies.*'a0005'"),
    ],
)
def test_unusable_input_is_named(change, message):
    with pytest.raises(LibranasError, match=message):
        choose(*change(*table(n=20)))


# ------------------------------------------------------------------------------------- one ranking of three


def test_log_rank_by_hand():
    scores = pd.DataFrame({"p": [1.0, 2.0, 3.0, np.nan], "q": [5.0, 5.0, 9.0, 1.0]}, index=list("abcd"))
    expected = [np.log(2 / 4 * 2.5 / 4), np.log(3 / 4 * 2.5 / 4), 0, np.log(1 / 4 * 1 / 4)]
    np.testing.assert_allclose(log_rank(scores), expected)
    assert list(log_rank(scores).index) == list("abcd")


def fitness(reference: dict | pd.DataFrame, candidates: dict | pd.DataFrame) -> np.ndarray:
    """Fitness of candidates, a column of scores for each proxy, within a reference sample."""
    table = pd.DataFrame(candidates)
    return ReferenceRanks.of(pd.DataFrame(reference))(Sample(table, pd.Series(1.0, table.index)))


REFERENCE = st.lists(st.one_of(st.integers(-50, 50).map(float), st.just(np.nan)), min_size=2, max_size=30).filter(
    lambda values: np.isfinite(values).any()
)
CANDIDATES = st.lists(st.integers(-4000, 4000), min_size=2, max_size=20, unique=True)


@given(REFERENCE, CANDIDATES)
def test_fitness_is_strictly_monotone_inside_and_far_outside(reference, quarters):
    values = fitness({"p": reference}, {"p": [q / 4 for q in sorted(quarters)]})
    assert (np.diff(values) > 0).all()
    assert all(-np.inf < v < 0 for v in values)  # every F is in (0, 1)


@given(st.integers(0, 1000))
def test_fitness_orders_the_reference_sample_as_log_rank_does(seed):
    rng = np.random.default_rng(seed)
    reference = pd.DataFrame({"p": rng.integers(0, 9, size=30), "q": np.exp(9 * rng.normal(size=30))})
    expected = log_rank(reference) + 2 * np.log(30 / 31)
    np.testing.assert_allclose(fitness(reference, reference), expected, rtol=1e-10, atol=1e-10)


def test_fitness_is_continuous_at_the_ends_and_at_the_knots():
    reference = [0.0, 1.0, 1.0, 4.0, 10.0]
    for knot in reference:
        below, at, above = fitness({"p": reference}, {"p": [knot - 1e-9, knot, knot + 1e-9]})
        assert below < at < above and above - below < 1e-7


def test_fitness_does_not_depend_on_company_units_or_extra_proxies():
    rng = np.random.default_rng(0)
    reference = pd.DataFrame(rng.normal(size=(50, 2)), columns=["p", "q"])
    candidates = pd.DataFrame(3 * rng.normal(size=(20, 3)), columns=["q", "p", "other"])
    together = fitness(reference, candidates)
    assert together.shape == (20,)
    ranks = ReferenceRanks.of(reference)
    alone = [ranks(Sample.one(row, 1.0))[0] for _, row in candidates.iterrows()]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_allclose(together, fitness(8 * reference - 4, 8 * candidates - 4), rtol=1e-9)


def test_one_proxy_beyond_the_reference_cannot_pay_for_a_bad_one():
    reference = {"p": np.arange(100.0), "q": np.arange(100.0)}
    even, odd = fitness(reference, {"p": [90.0, 1e9], "q": [90.0, 50.0]})
    assert even > odd


def test_a_failed_score_is_the_worst_fitness():
    bad = [np.nan, np.inf, -np.inf]
    values = fitness({"p": [1.0, 2.0], "q": [1.0, 2.0]}, {"p": [*bad, -1e300], "q": [1e6, 1e6, 1e6, 1.0]})
    assert (values[:3] == -np.inf).all() and values[3] > -np.inf


def test_fitness_errors():
    with pytest.raises(LibranasError, match="'q' has no finite value on the 2"):
        fitness({"p": [1.0, 2.0], "q": [np.nan, np.inf]}, {"p": [1.0]})
    with pytest.raises(LibranasError, match=r"no \['q'\]"):
        fitness({"p": [1.0], "q": [2.0]}, {"p": [1.0]})
