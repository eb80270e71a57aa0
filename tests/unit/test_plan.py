"""An estimate of a run: the jobs that Snakemake lists, what they cost, when they are done."""

import shutil
from pathlib import Path

import pytest
import yaml

from libranas.cli import main
from libranas.config.checks import checked
from libranas.core.errors import LibranasError
from libranas.runs import plan, probe

DOT = r"""digraph snakemake_dag {
	0[label = "all", color = "0.03 0.6 0.85", style="rounded"];
	1[label = "report", color = "0.51 0.6 0.85", style="rounded"];
	2[label = "search\nstrategy: params", color = "0.29 0.6 0.85", style="rounded"];
	3[label = "score\nshard: 0", color = "0.56 0.6 0.85", style="rounded"];
	4[label = "score\nshard: 1", color = "0.56 0.6 0.85", style="rounded"];
	5[label = "prepare", color = "0.45 0.6 0.85", style="rounded,dashed"];
	1 -> 0
	2 -> 1
	3 -> 2
	4 -> 2
	5 -> 3
	5 -> 4
}"""
IMAGES = probe.Images({"train": 1000, "val": 200, "test": 300}, 10)
COSTS = probe.Costs(start=2.0, score=0.5, image=0.01, params=4e5, memory=1e9)
ROOT = Path(__file__).parents[2]
SETTINGS = yaml.safe_load((ROOT / "config.yaml").read_text())


def test_jobs_that_are_done_are_left_out_and_searches_have_their_strategy():
    jobs = plan.read_jobs(DOT)
    assert {n: job.rule for n, job in jobs.items()} == {
        **{"0": "all", "1": "report", "2": "search params"},
        **{"3": "score", "4": "score"},
    }
    assert jobs["2"].after == {"3", "4"} and not jobs["3"].after


@pytest.mark.parametrize(("cores", "expected"), [(1, 22.0), (2, 12.0), (9, 12.0)])
def test_jobs_begin_when_a_core_is_free_and_what_they_need_is_there(cores, expected):
    jobs = plan.read_jobs(DOT)
    for number, seconds in {"1": 1.0, "2": 1.0, "3": 10.0, "4": 10.0}.items():
        jobs[number].seconds = seconds
    assert plan.scheduled(jobs, cores) == expected


def test_work_is_shared_out_among_jobs():
    config = checked(SETTINGS)
    jobs = plan.read_jobs(DOT)
    found = plan.plan(config, jobs, IMAGES, COSTS, 2)
    seconds = {rule: each for rule, _, each in found.rules}
    assert [rule for rule, *_ in found.rules] == ["score", "search params", "report"]
    assert seconds["score"] == pytest.approx(2 + 100 * 0.5 / 2)
    assert seconds["search params"] == 2 and found.memory == 2e9
    assert found.seconds == pytest.approx(27 + 2 + seconds["report"])

    counts = dict.fromkeys(("benchmark_train_shard", "train", "guided_train"), 2)
    seconds = plan.seconds_of(config, IMAGES, COSTS, counts)
    one = 0.01 * (12 * 1000 + 0.35 * 200)
    assert seconds["benchmark_train_shard"] == pytest.approx(2 + 40 * one / 2)  # 30 networks, 10 of them twice
    assert seconds["guided_train"] == pytest.approx(2 + config["search"]["labels"] * one / 2)
    assert seconds["train"] == pytest.approx(3 + 1.4 * 0.01 * (16 * (1000 + 70) + 0.35 * 300))


def test_costs_are_measured_on_noise(monkeypatch):
    monkeypatch.setattr(probe, "NETWORKS", 2)
    monkeypatch.setattr(probe, "UPDATES", 2)
    found = probe._measured(checked(SETTINGS), 10, "cpu", 0)
    assert 0 < found.image < found.score < 30 and found.params > 1000 and found.memory > 1e8


def test_images_are_counted_without_decoding():
    counted = probe.Images.of(checked(SETTINGS)["data"], 1)
    assert counted.classes == 10 and sum(counted.splits.values()) == 1797 and min(counted.splits.values()) > 100


def test_the_command_says_what_takes_most(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["plan"]) == 2 and "has no Snakefile" in capsys.readouterr().err
    (tmp_path / "Snakefile").touch()
    shutil.copy(ROOT / "config.yaml", tmp_path)
    monkeypatch.setattr(plan, "ask_snakemake", lambda arguments: plan.read_jobs(DOT))
    monkeypatch.setattr(probe, "measure", lambda *_: COSTS)
    assert main(["plan", "--cores", "2", "--config", "sample={count: 200}"]) == 0
    text = capsys.readouterr().out
    assert "score takes most of it" in text and "about 57 s with 2 cores" in text
    monkeypatch.setattr(plan, "ask_snakemake", lambda arguments: {})
    assert main(["plan"]) == 0 and "Nothing to do" in capsys.readouterr().out
    assert main(["plan", "--configfile", "none.yaml"]) == 2


def test_what_snakemake_cannot_plan_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Snakefile").write_text("rule all:\n    input: 'missing'\n")
    with pytest.raises(LibranasError, match="missing"):
        plan.ask_snakemake(["--cores", "1"])
