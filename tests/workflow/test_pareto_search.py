"""The workflow whose winner comes from a front of fitness, size and measured latency, scored by two processes."""

import pandas as pd

from libranas.core.files import read_json


def test_a_front_is_searched_shown_and_its_compromise_chosen(copied):
    search = {"method": "nsga2", "objectives": ["params", "latency"], "winner": "balanced", "workers": 2}
    changes = {"search": search, "latency": {"repetitions": 3, "held_out": 4}, "train": None}
    planned = copied.planned(changes=changes)
    # the random control is there; its scores do not depend on how many processes there are
    assert (
        planned["latency"] == 1 and planned["search"] <= 3 and not {"sample", "score", "libra", "train"} & set(planned)
    )
    copied.succeed(changes=changes)

    table = read_json(copied.results / "latency/table.json")
    assert len(table["held_out"]["networks"]) == 4 and table["held_out"]["median_error"] < 1
    history = pd.read_csv(copied.results / "search/nsga2.csv")
    front = history[history["front"]]
    assert len(history) == 40 == history["id"].nunique() and 1 <= len(front) < 40
    for _, row in front.iterrows():
        better = (history["fitness"] >= row["fitness"]) & (history["params"] <= row["params"])
        better &= history["latency"] <= row["latency"]
        assert set(history["id"][better]) == {row["id"]}
    selected = read_json(copied.results / "search/selected.json")
    assert selected["winner"]["id"] in set(front["id"])
    assert all(entry["latency"]["low"] <= entry["latency"]["median"] for entry in selected.values())
    page = (copied.results / "report.html").read_text(encoding="utf-8")
    assert "Front of fitness against params, latency" in page and "its median error is" in page
    assert all(row in page for row in front["id"])


def test_two_processes_find_what_one_does(finished, copied):
    (copied.results / "state/search/random.jsonl").unlink()  # else evaluations would be taken from it
    (copied.results / "search/random.csv").unlink()
    copied.succeed("results/tiny/search/random.csv", changes={"search": {"workers": 2}})
    assert (copied.results / "search/random.csv").read_bytes() == (finished.results / "search/random.csv").read_bytes()
