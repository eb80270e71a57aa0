"""Candidates of a guided search over a space."""

import numpy as np
import pandas as pd
import pytest

from libranas.predictors.base import Sample
from libranas.search.rounds import Candidates
from libranas.search.strategies.guided import sizes
from libranas.spaces import AutoFormerSpace, Budget, Sampler

SPACE = AutoFormerSpace((12, 16, 24), (2, 3), (1, 2), (1.0, 2.0), 8, 8, 4, 1, 10)
BUDGET = Budget(params=(3000, 14000))


def scores(arch) -> dict[str, float]:
    """Two proxies of a network: its width with some noise, and nonsense."""
    rng = np.random.default_rng(int(arch.id, 16))
    return {"good": arch["embed_dim"] + rng.normal(), "nonsense": rng.normal()}


@pytest.fixture
def candidates() -> Candidates:
    archs = Sampler(SPACE, BUDGET, np.random.default_rng(0)).take(40)
    score_AP = pd.DataFrame([scores(a) for a in archs], index=[a.id for a in archs])
    return Candidates(SPACE, BUDGET, 1, archs, Sample.of(score_AP, SPACE, archs))


def accuracy(arch) -> float:
    return arch["embed_dim"] / 100 + arch["depth"] / 1000


@pytest.mark.parametrize(
    ("labels", "per_round", "expected"),
    [(40, 10, [10, 10, 10, 10]), (13, 5, [10, 3]), (7, 5, [7]), (10, 5, [10]), (26, 8, [10, 8, 8])],
)
def test_sizes_of_the_rounds(labels, per_round, expected):
    assert sizes(labels, per_round) == expected


def test_more_labels_keep_the_rounds_before():
    assert sizes(33, 5)[:-1] == sizes(30, 5)


def test_the_first_round_needs_no_accuracy(candidates):
    first = candidates.propose(0, 10)
    assert len(set(first)) == 10 and first == candidates.propose(0, 10)


def test_rounds_find_the_best_networks(candidates):
    """The best have width 24 and depth 3; children are within the budget, new, and scored before they are proposed."""
    chosen = candidates.propose(0, 10)
    known = {candidates.archs[i].id: accuracy(candidates.archs[i]) for i in chosen}
    for number in (1, 2, 3):
        candidates.know(pd.Series(known))
        before = {arch.id for arch in candidates.archs}
        children = candidates.children(number, 8, 3)
        assert len({c.id for c in children} - before) == len(children) == 8
        assert all(SPACE.contains(c) and BUDGET.admits(SPACE, c) for c in children)
        candidates.add(children, [scores(c) for c in children])
        chosen = candidates.propose(number, 4)
        assert not {candidates.archs[i].id for i in chosen} & known.keys()
        known |= {candidates.archs[i].id: accuracy(candidates.archs[i]) for i in chosen}
    best = max(accuracy(a) for a in Sampler(SPACE, BUDGET, np.random.default_rng(5)).take(60))
    assert max(known.values()) >= best


def test_a_failed_training_is_not_the_best(candidates):
    known = {candidates.archs[i].id: accuracy(candidates.archs[i]) for i in candidates.propose(0, 10)}
    failed = next(iter(known))
    candidates.know(pd.Series(known | {failed: np.nan}))
    mean_N, _ = candidates.posterior()
    others = [candidates.position[id] for id in known if id != failed]
    assert mean_N[candidates.position[failed]] < max(mean_N[others])
    assert len(candidates.propose(1, 5)) == 5


def test_a_small_space_runs_out_of_candidates():
    space = AutoFormerSpace((12, 16), (2,), (1, 2), (1.0,), 8, 8, 4, 1, 10)  # eight members
    archs = Sampler(space, Budget(), np.random.default_rng(0)).take(6)
    score_AP = pd.DataFrame([scores(a) for a in archs], index=[a.id for a in archs])
    candidates = Candidates(space, Budget(), 1, archs, Sample.of(score_AP, space, archs))
    first = candidates.propose(0, 10)
    assert sorted(first) == list(range(6))
    candidates.know(pd.Series({candidates.archs[i].id: accuracy(candidates.archs[i]) for i in first}))
    children = candidates.children(1, 10, 2)
    assert len(children) == 2
    candidates.add(children, [scores(c) for c in children])
    assert sorted(candidates.propose(1, 5)) == [6, 7]
