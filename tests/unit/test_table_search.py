"""Searches on a table: what is looked up, what counts as regret, and the fronts, on tables small enough to check."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from enumeration import members

from libranas.core.errors import LibranasError
from libranas.published.tables import read_table
from libranas.search.simulate import Listed
from libranas.search.strategies.evolution import Evolution
from libranas.search.strategies.random import RandomSearch
from libranas.spaces import AutoFormerSpace

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
from simulate import ACCURACY, Table, combined, fronts, proposals, read_latencies, regret, regrets, single
from table_search import draw_fronts, draw_regrets

SPACE = AutoFormerSpace((16, 24), (2, 3), (1, 2), (1.0, 2.0), 8, 8, 2, 1, 10, max_relative_position=2)
MEMBERS = list(members(SPACE))
LISTED = MEMBERS[::2] + MEMBERS[1::6]  # not all of the space


def accuracy_of(arch) -> float:
    return 50 + 10 * np.mean(arch["num_heads"]) - arch["mlp_ratio"][0] + int(arch.id, 16) % 97 / 100


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Table:
    rng = np.random.default_rng(0)
    accuracy = np.array([accuracy_of(a) for a in LISTED])
    path = tmp_path_factory.mktemp("tables") / "toy.csv"
    pd.DataFrame(
        {
            "arch": [a.json for a in LISTED],
            "val_accuracy": accuracy,
            "good": accuracy + rng.normal(scale=0.5, size=len(accuracy)),
            "noise": rng.normal(size=len(accuracy)),
            "fails": np.where(rng.random(len(accuracy)) < 0.5, np.nan, accuracy),
            "params": [SPACE.params(a) for a in LISTED],
        }
    ).to_csv(path, index=False)
    return Table.of(read_table(path, space=SPACE))


def test_a_table_is_read(table):
    assert table.name == "toy" and len(table.accuracy) == len(LISTED) == len(table.sample.score_AP)
    assert table.accuracy[LISTED[3].id] == accuracy_of(LISTED[3]) and table.best == max(map(accuracy_of, LISTED))
    assert table.sample.score_AP["params"][LISTED[5].id] == SPACE.params(LISTED[5])
    assert len(table.known(20, 1)) == 20 and set(table.known(20, 1)) != set(table.known(20, 2))


def test_isomorphic_members_are_one_network(tmp_path, monkeypatch):
    twin = {MEMBERS[1]: MEMBERS[0]}
    monkeypatch.setattr(AutoFormerSpace, "representative", lambda self, arch: twin.get(arch, arch))
    space = AutoFormerSpace((16, 24), (2, 3), (1, 2), (1.0, 2.0), 8, 8, 2, 3, 7)
    rows = {"arch": [a.json for a in MEMBERS[:3]], "val_accuracy": [1.0, 2.0, 4.0], "params": [5, 5, 6]}
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    table = Table.of(read_table(tmp_path / "t.csv", space=space))
    assert table.accuracy.to_dict() == {MEMBERS[0].id: 1.5, MEMBERS[2].id: 4.0}
    rows = {"net": rows["arch"], "phone_latency": [9.0, 7.0, -1.0]}
    pd.DataFrame(rows).to_csv(tmp_path / "latency.csv", index=False)
    latency = read_latencies(tmp_path / "latency.csv", space)["phone_latency"]
    assert latency[MEMBERS[0].id] == 9.0 and np.isnan(latency[MEMBERS[2].id]) and len(latency) == 2


def test_a_table_without_sizes_is_refused(tmp_path):
    pd.DataFrame({"arch": [MEMBERS[0].json], "val_accuracy": [1.0]}).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(LibranasError, match=r"no table of scores and accuracies.*params"):
        read_table(tmp_path / "t.csv", space=SPACE)


def test_only_listed_networks_are_proposed_and_none_twice(table):
    allowed = Listed(frozenset(table.accuracy.index))
    for searcher in (RandomSearch(SPACE, allowed, 1), Evolution(SPACE, allowed, 1, 10, 4)):
        names = proposals(searcher, table.accuracy, 60)
        assert len(set(names)) == 60 and set(names) <= set(table.accuracy.index)
    with pytest.raises(LibranasError, match="no network"):
        Listed(frozenset()).check(SPACE)


def test_regret_is_that_of_the_incumbent(table):
    names = list(table.accuracy.index[:6])
    value = pd.Series([np.nan, 1.0, 3.0, 3.0, -np.inf, 5.0], names)
    missed = table.best - table.accuracy[names].to_numpy()
    assert regret(table, names, value).tolist() == missed[[0, 1, 2, 2, 2, 5]].tolist()
    # with the accuracy as the guide the regret never rises
    assert (np.diff(regret(table, names, table.accuracy)) <= 0).all()


def test_regrets_of_all_guides(table):
    guides = {
        "accuracy": ACCURACY,
        "good": single("good"),
        "noise": single("noise"),
        "fails": single("fails"),
        "log_rank_all": combined("log_rank_all", 20),
        "libra_corrected": combined("libra_corrected", 20),
        "ridge_ranks": combined("ridge_ranks", 20),
    }
    rows = regrets(table, guides, runs=6, points=(1, 10, 60))
    assert len(rows) == 2 * len(guides) * 3 and np.isfinite(rows["regret"]).all() and (rows["runs"] == 6).all()
    assert (rows["low"] <= rows["regret"]).all() and (rows["regret"] <= rows["high"]).all()
    at = rows[rows["evaluations"] == 60].set_index(["strategy", "fitness"])
    assert at["regret"]["evolution", "accuracy"] <= at["regret"]["random", "accuracy"]
    assert at["regret"]["evolution", "good"] < at["regret"]["evolution", "noise"]
    assert at["labels"]["random", "accuracy"] == 60 and at["labels"]["evolution", "libra_corrected"] == 20
    assert at["labels"]["evolution", "log_rank_all"] == 0
    pd.testing.assert_frame_equal(rows, regrets(table, guides, runs=6, points=(1, 10, 60)))
    assert draw_regrets(rows).startswith("<svg")
    with pytest.raises(LibranasError, match="fewer networks"):
        regrets(table, guides, points=(1000,))


def test_fronts_of_all_guides(table):
    rng = np.random.default_rng(0)
    latency = table.sample.score_AP["params"] * rng.uniform(0.8, 1.2, len(table.accuracy))
    latency = latency.rename("phone")
    latency.iloc[-3:] = np.nan
    guides = {"accuracy": ACCURACY, "good": single("good"), "noise": single("noise")}
    rows = fronts(table, latency, guides, runs=3, evaluations=60)
    at = rows.set_index(["method", "fitness"])
    assert len(rows) == 9 and (rows["networks"] == len(LISTED) - 3).all()
    assert at["hypervolume"]["ranking", "accuracy"] == pytest.approx(1) and at["regret"]["ranking", "accuracy"] == 0
    assert (rows["hypervolume"] <= 1 + 1e-9).all() and (rows["regret"] >= 0).all()
    assert at["regret"]["evolution", "good"] < at["regret"]["evolution", "noise"]
    assert at["evaluations"]["ranking", "good"] == len(LISTED) - 3 and at["labels"]["random", "accuracy"] == 60
    assert draw_fronts(rows).startswith("<svg")
