"""Rank statistics against scipy and slow references; policy for non-finite values; intervals."""

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from libranas.core import stats
from libranas.core.errors import LibranasError

# few distinct values: ties everywhere
TIED = st.lists(st.integers(-4, 4).map(float), min_size=4, max_size=12)


def pairs(elements=TIED):
    return elements.flatmap(
        lambda x: st.tuples(st.just(x), st.lists(st.integers(-4, 4).map(float), min_size=len(x), max_size=len(x)))
    )


@given(pairs())
def test_spearman_equals_scipy(xy):
    x, y = xy
    if len(set(x)) < 2 or len(set(y)) < 2:
        assert np.isnan(stats.spearman(x, y))
    else:
        assert stats.spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-12)


@given(pairs())
def test_kendall_is_tau_b_by_counting_pairs(xy):
    x, y = map(np.array, xy)
    signs = [(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i, j in itertools.combinations(range(len(x)), 2)]
    a, b = np.array(signs).T
    if not a.any() or not b.any():
        assert np.isnan(stats.kendall(x, y))
    else:
        expected = (a * b).sum() / np.sqrt((a != 0).sum() * (b != 0).sum())
        assert stats.kendall(x, y) == pytest.approx(expected, abs=1e-12)


@given(pairs())
def test_correlations_are_signed(xy):
    x, y = map(np.array, xy)
    for correlation in (stats.spearman, stats.kendall):
        np.testing.assert_allclose(correlation(-x, y), -correlation(x, y), atol=1e-12)


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=1, max_size=10),
)
def test_non_finite_values_rank_below_all_finite_and_tie(values):
    x = np.array(values)
    finite = np.isfinite(x)
    out = stats.rank_last(x)
    assert np.isfinite(out).all()
    np.testing.assert_array_equal(out[finite], x[finite])
    assert len(set(out[~finite])) <= 1
    if finite.any() and not finite.all():
        assert out[~finite].max() < out[finite].min()


def test_a_failing_proxy_does_not_look_good():
    accuracy = [1.0, 2.0, 3.0, 4.0]
    assert stats.spearman([1, 2, 3, np.inf], accuracy) == stats.spearman([1, 2, 3, 0], accuracy) < 0.5
    assert stats.spearman([np.nan, 2, 3, 4], accuracy) == 1
    assert np.isnan(stats.spearman([np.nan] * 4, accuracy))
    assert np.isnan(stats.spearman([1.0], [2.0])) and np.isnan(stats.kendall([1.0], [2.0]))
    with pytest.raises(ValueError):
        stats.spearman([1, 2, 3], accuracy)


def test_rank_last_leaves_its_argument_alone():
    x = np.array([1.0, np.nan])
    stats.rank_last(x)
    assert np.isnan(x[1])


def test_partial_spearman_is_the_correlation_of_residual_ranks():
    rng = np.random.default_rng(0)
    given_ = rng.normal(size=200)
    x, y = given_ + rng.normal(size=200), given_ + rng.normal(size=200)
    a, b, g = (scipy.stats.rankdata(v) for v in (x, y, given_))
    residuals = [v - np.polyval(np.polyfit(g, v, 1), g) for v in (a, b)]
    assert stats.partial_spearman(x, y, given_) == pytest.approx(np.corrcoef(*residuals)[0, 1], abs=1e-10)
    assert stats.spearman(x, y) > 0.35 and abs(stats.partial_spearman(x, y, given_)) < 0.2
    assert np.isnan(stats.partial_spearman(given_, y, np.exp(given_)))
    other = x + rng.normal(size=200)
    basis = np.column_stack([np.ones(200), g, scipy.stats.rankdata(other)])
    residuals = [v - basis @ np.linalg.pinv(basis) @ v for v in (a, b)]
    assert stats.partial_spearman(x, y, given_, other) == pytest.approx(np.corrcoef(*residuals)[0, 1], abs=1e-10)
    assert np.isnan(stats.partial_spearman(np.ones(200), y, given_))


@given(pairs(), st.sampled_from([0.1, 0.25, 0.5, 1.0]))
def test_precision_at_is_the_mean_over_tie_breaks(xy, fraction):
    score, truth = map(np.array, xy)
    k = max(1, int(np.ceil(fraction * len(score))))
    rng = np.random.default_rng(0)

    def inside(values):
        """Chance of each entry to be in the top k, by trying many orders of tied entries."""
        hits = np.zeros(len(values))
        for _ in range(400):
            order = np.lexsort((rng.random(len(values)), values))[::-1]
            hits[order[:k]] += 1
        return hits / 400

    expected = inside(score) @ inside(truth) / k
    assert stats.precision_at(score, truth, fraction) == pytest.approx(expected, abs=0.12)


def test_precision_at_known_values():
    truth = np.arange(10.0)
    assert stats.precision_at(truth, truth, 0.1) == 1
    assert stats.precision_at(-truth, truth, 0.5) == 0
    assert stats.precision_at(np.zeros(10), truth, 0.3) == pytest.approx(0.3)
    assert stats.precision_at(np.arange(30.0), np.arange(30.0), 0.1) == 1
    with pytest.raises(ValueError):
        stats.precision_at(truth, truth, 0)


def test_bootstrap_interval():
    rng = np.random.default_rng(1)
    x = rng.normal(size=400)
    low, high = stats.bootstrap_interval(np.mean, x, n=2000, seed=3)
    half = 1.96 * x.std() / 20
    assert low == pytest.approx(x.mean() - half, abs=0.01) and high == pytest.approx(x.mean() + half, abs=0.01)
    assert stats.bootstrap_interval(np.mean, x, n=2000, seed=3) == (low, high)
    assert stats.bootstrap_interval(np.mean, x, n=2000, seed=4) != (low, high)
    narrow = stats.bootstrap_interval(np.mean, x, n=2000, seed=3, level=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_bootstrap_resamples_architectures_together():
    x = np.random.default_rng(0).normal(size=30)
    low, high = stats.bootstrap_interval(stats.spearman, x, np.exp(x), n=50, seed=0)
    assert low == pytest.approx(1) and high == pytest.approx(1)
    with pytest.raises(ValueError):
        stats.bootstrap_interval(stats.spearman, x, x[:-1], seed=0)


def test_the_interval_of_spearman_is_that_of_each_resample_by_itself():
    x, y = np.random.default_rng(0).normal(size=(2, 12)).round(1)  # with ties
    x[3] = np.nan
    for n in (7, 40):
        assert stats.spearman_interval(x, y, n=n, seed=1) == stats.bootstrap_interval(stats.spearman, x, y, n=n, seed=1)


def test_bootstrap_of_an_undefined_statistic_is_undefined():
    assert np.isnan(stats.bootstrap_interval(stats.spearman, np.ones(9), np.arange(9.0), n=20, seed=0)).all()


def test_mean_interval_covers_as_often_as_it_says():
    mean, low, high = stats.mean_interval([1.0, 2.0, 3.0])
    # Student's t, 2 degrees of freedom: 4.302653 * 1 / sqrt(3)
    assert mean == 2 and high - 2 == pytest.approx(2.4841377, abs=1e-6) == 2 - low
    rng = np.random.default_rng(0)
    inside = [low <= 0 <= high for _, low, high in (stats.mean_interval(rng.normal(size=4)) for _ in range(2000))]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)


def test_welch():
    a, b = [20.1, 21.3, 19.8, 22.0], [18.0, 18.9, 25.0]
    difference, low, high, p = stats.welch(a, b)
    va, vb = np.var(a, ddof=1) / 4, np.var(b, ddof=1) / 3
    df = (va + vb) ** 2 / (va**2 / 3 + vb**2 / 2)
    half = scipy.stats.t.ppf(0.975, df) * np.sqrt(va + vb)
    assert difference == pytest.approx(np.mean(a) - np.mean(b))
    assert (low, high) == pytest.approx((difference - half, difference + half))
    assert p == pytest.approx(2 * scipy.stats.t.sf(abs(difference) / np.sqrt(va + vb), df))
    assert np.isnan(stats.welch([1.0, 1.0], [2.0, 2.0])[1:]).all()


def test_one_seed_has_no_interval():
    with pytest.raises(LibranasError, match="at least 2"):
        stats.mean_interval([1.0])
    with pytest.raises(LibranasError, match="at least 2"):
        stats.welch([1.0, 2.0], [1.0])
