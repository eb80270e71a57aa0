"""Fronts, NSGA-II's order and hypervolume against definitions that are easy to see through."""

import itertools

import numpy as np
import pytest

from libranas.core import pareto


def dominates(a, b) -> bool:
    return bool((a <= b).all() and (a < b).any())


@pytest.fixture(params=(2, 3, 4))
def points(request) -> np.ndarray:
    rng = np.random.default_rng(request.param)
    point_PM = rng.integers(0, 9, (60, request.param)).astype(float)
    point_PM[:5, 0] = np.inf
    point_PM[5, -1] = np.nan
    return point_PM


def test_the_front_is_what_nothing_dominates(points):
    front = pareto.front(points)
    finite = points[6:]
    for row in finite:
        assert any(dominates(other, row) for other in finite) != any((row == points[i]).all() for i in front)
    assert len({tuple(points[i]) for i in front}) == len(front) and min(front) > 5
    assert all(i == np.flatnonzero((points == points[i]).all(axis=1))[0] for i in front)  # of equals the first
    assert [tuple(points[i]) for i in front] == sorted(tuple(points[i]) for i in front)
    assert len(pareto.front(np.full((3, 2), np.inf))) == 0 == len(pareto.front(np.empty((0, 2))))


def test_nsga2_keeps_whole_fronts_and_then_the_least_crowded(points):
    left, expected = list(range(6, 60)), []
    while left:
        rank = [i for i in left if not any(dominates(points[j], points[i]) for j in left)]
        expected.append(set(rank))
        left = [i for i in left if i not in rank]
    order = list(pareto.best_first(points, 60))
    for rank in expected:
        assert set(order[: len(rank)]) == rank
        order = order[len(rank) :]
    assert order == [0, 1, 2, 3, 4, 5]  # not finite
    assert list(pareto.best_first(points, 17)) == list(pareto.best_first(points, 60))[:17]


def test_the_ends_of_a_front_come_before_its_middle():
    line = np.array([[0, 10], [4, 6], [5, 5], [5.2, 4.8], [10, 0]], float)
    order = pareto.best_first(line, 5)
    assert set(order[:2]) == {0, 4} and order[-1] == 2
    assert len(pareto.best_first(np.full((4, 2), np.inf), 3)) == 3


def test_the_best_compromise_of_a_front():
    front = np.array([[0, 100], [1, 30], [4, 20], [10, 0]], float)
    assert list(pareto.balanced(front)) == [1, 2, 0, 3]  # worst shares 0.3, 0.4, 1, 1; sums 1 and 1
    assert list(pareto.balanced(front * [1000, 1] + [7, -3])) == [1, 2, 0, 3]
    assert list(pareto.balanced(np.array([[5.0, 2.0]]))) == [0]


def test_the_hypervolume_counts_cells(points):
    at = np.isfinite(points).all(axis=1)
    some = points[at][:5]
    cells = itertools.product(range(7), repeat=points.shape[1])  # corner 7
    covered = sum(any((row <= cell).all() for row in some) for cell in map(np.array, cells))
    assert pareto.hypervolume(np.vstack([some, points[:5]]), [7] * points.shape[1]) == pytest.approx(covered)
    assert pareto.hypervolume(np.full((1, 2), 8.0), [7, 7]) == 0 == pareto.hypervolume(np.empty((0, 2)), [7, 7])
