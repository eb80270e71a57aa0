"""CPU time by kind of work."""

import pytest

from libranas.report.cost import WORK, costs
from libranas.search.registry import STRATEGIES


def test_jobs_of_a_kind_are_added(tmp_path):
    head = "s\th:m:s\tmax_rss\tcpu_time\n"
    for name, seconds in (("score/0", 30), ("score/1", 60), ("search/guided/train-0-1", 120), ("search/params", 6)):
        path = tmp_path / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{head}{seconds}\t0:01:39\t800\t2\n")
    (tmp_path / "search/random.tsv").write_text(f"{head}0\t0:00:00\tNA\tNA\n")  # too short to be measured
    rows = list(costs(tmp_path))
    assert [row["work"] for row in rows if not row["search"]] == ["scores of the sample"]
    found = {row["work"]: (row["jobs"], row["minutes"]) for row in rows}
    assert found.pop("scores of the sample") == (2, 1.5)
    assert found.pop("guided search: short trainings") == (1, 2.0)
    assert found.pop(f"{STRATEGIES['params'].title}: scores") == (1, pytest.approx(0.1))
    assert found.pop(f"{STRATEGIES['random'].title}: scores") == (1, 0.0)
    assert not found


def test_every_strategy_has_a_kind_of_work():
    patterns = set(WORK.values())
    assert all(f"search/{name}.tsv" in patterns for name, s in STRATEGIES.items() if not s.trains)
