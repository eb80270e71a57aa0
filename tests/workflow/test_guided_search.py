"""Guided search: rounds of proposals and trainings that go on, extend and end in the report."""

import json
import os
import re
import signal
import time

import numpy as np
import pandas as pd
from conftest import GUIDED, HISTORY, ROUNDS, Run, kill

from libranas.core.files import read_json


def trainings(run: Run) -> list[tuple[str, int]]:
    """Architecture and seed of each short training that the search did, by its logs."""
    logs = sorted(run.results.glob("state/search/labels-*.jsonl"))
    records = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    return [(record["arch"], record["seed"]) for record in records]


def test_the_search_trains_what_it_proposes(searched):
    history = pd.read_csv(searched.folder / HISTORY)
    assert list(history["round"]) == [0] * 10 + [1] * 3 and history["id"].is_unique
    assert history["params"].between(5000, 13000).all() and history["accuracy"].between(0, 1).all()
    sampled = set(pd.read_csv(searched.results / "sample/archs.csv")["id"])
    candidates = pd.read_csv(searched.results / "search/guided/candidates-1.csv")
    assert set(history["id"][:10]) <= sampled and set(history["id"][10:]) <= sampled | set(candidates["id"])
    assert len(candidates) == 6 and not set(candidates["id"]) & sampled
    assert history["long_accuracy"].notna().sum() == 3 and history["fitness"].between(0, 1).all()
    assert np.isfinite(candidates.drop(columns=["id", "architecture"])).all(axis=None)


def test_what_the_benchmark_trained_is_not_trained_again(searched):
    history, done = pd.read_csv(searched.folder / HISTORY), trainings(searched)
    benchmark = pd.read_csv(searched.results / "benchmark/train.csv")
    first = benchmark[benchmark["seed"] == 0].set_index("id")["accuracy"]
    shared = history[history["id"].isin(first.index)]
    assert len(shared) and set(history["id"]) - set(first.index) == {arch for arch, _ in done}
    np.testing.assert_array_equal(shared["accuracy"], first[shared["id"]])


def test_more_labels_extend_a_finished_search(searched, tmp_path):
    run = searched.copy(tmp_path / "more")
    before, done = pd.read_csv(run.folder / HISTORY), trainings(run)
    changes = {"search": {**GUIDED, "labels": 16}}
    assert run.planned(HISTORY, changes=changes) == {**ROUNDS, "guided_propose": 1, "guided_train": 2}
    run.succeed(HISTORY, changes=changes)
    after = pd.read_csv(run.folder / HISTORY)
    assert list(after["id"][:13]) == list(before["id"]) and list(after["accuracy"][:13]) == list(before["accuracy"])
    assert len(after) == 16 and trainings(run)[: len(done)] != [] and set(done) < set(trainings(run))
    assert len(set(trainings(run))) == len(trainings(run))


def test_a_killed_round_goes_on(searched, tmp_path):
    run = searched.copy(tmp_path / "killed")
    for path in [*run.results.glob("search/guided/[clp]*-1*.csv"), run.folder / HISTORY]:
        path.unlink()
    for log in run.results.glob("state/search/*.jsonl"):
        log.unlink()
    process = run.start(HISTORY, changes={"search": GUIDED})
    log = run.results / "state/search/labels-0.jsonl"
    while not (log.exists() and log.read_bytes().count(b"\n")):
        assert process.poll() is None, run.output
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    kill(process)
    run.succeed(HISTORY, changes={"search": GUIDED})
    assert (run.folder / HISTORY).read_bytes() == (searched.folder / HISTORY).read_bytes()


def test_the_report_shows_the_rounds(guided):
    page = (guided.results / "report.html").read_text(encoding="utf-8")
    selected = read_json(guided.results / "search/selected.json")
    benchmark = pd.read_csv(guided.results / "benchmark/train.csv").groupby("id")["accuracy"].mean()
    assert benchmark[selected["random_best"]["id"]] == benchmark.max()
    history = pd.read_csv(guided.folder / HISTORY).set_index("id")
    assert history["fitness"].idxmax() == selected["winner"]["id"]
    # What was trained by the recipe of the winner is not trained again.
    metrics = read_json(guided.results / "train/winner/0/metrics.json")
    assert metrics["val_accuracy"] == history["long_accuracy"][selected["winner"]["id"]]
    logs = [(guided.results / f"logs/train/winner-{seed}.log").read_text() for seed in (0, 1)]
    assert ["Going on after update 72 of 72." in log for log in logs] == [True, False]
    best = f"{100 * history['accuracy'].max():.2f} %"
    assert f"trained 13 networks for a short time in 2 rounds; the best has a validation accuracy of {best}" in page
    assert "best random" in page and "best of the random networks" in page
    rows = re.findall(r"<tr><td>(.*?)</td></tr>", page.split('id="rounds"')[1].split("</table>")[0])
    first, second, random = [row.split("</td><td>") for row in rows]
    by_round, so_far = history.groupby("round")["accuracy"], history["accuracy"].max() - history["accuracy"][:10].max()
    assert [row[:2] for row in (first, second)] == [["round 1", "10"], ["round 2", "3"]]
    assert [row[3] for row in (first, second)] == [f"{100 * value:.2f} %" for value in by_round.max()]
    assert (first[5], second[5], random[5]) == ("n/a", f"{100 * max(0, so_far):+.2f}", "n/a")
    assert all(float(minutes) >= 0 for minutes in [*first[6:], *second[6:]]) and random[1] == "22"
    trained = re.findall(r"<title>(\w+) \([^)]*round \d[^)]*\)", page.split('id="rounds"')[1].split("</svg>")[0])
    assert set(trained) >= set(history.index)


def test_a_guided_search_needs_a_recipe(fresh):
    changes = {"search": GUIDED, "benchmark": {"recipe": None, "method": "supernet"}}
    assert "benchmark.recipe: search.method guided trains networks by it" in fresh.fail(changes=changes)
