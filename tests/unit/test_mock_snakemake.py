"""Scripts run in this process, with Snakemake's own reading of the rules."""

import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from mock_snakemake import mock_snakemake, run_script  # noqa: E402

TINY = ROOT / "tests/workflow/tiny.yaml"


def test_a_job_is_the_one_that_snakemake_plans(tmp_path):
    job = mock_snakemake("score", configfiles=[TINY], config={"seed": 4}, directory=tmp_path, shard=1)
    assert job.output.scores == "results/tiny/scores/shards/1.h5" and job.wildcards.shard == "1"
    assert job.input.archs == "results/tiny/sample/archs.csv"
    assert job.params.config["seed"] == 4 and job.params.config["score"]["seeds"] == 2
    assert job.log[0] == "results/tiny/logs/score/1.log" and job.threads == 1
    assert job.resources["mem_mb"] == 3000 and job.rule == "score"


def test_scripts_follow_each_other_in_one_process(tmp_path):
    for rule in ("prepare", "sample"):
        run_script(rule, configfiles=[TINY], directory=tmp_path)
    archs = pd.read_csv(tmp_path / "results/tiny/sample/archs.csv")
    assert len(archs) == 40
    assert "40 architectures" in (tmp_path / "results/tiny/logs/sample.log").read_text()
    assert "architectures" not in (tmp_path / "results/tiny/logs/prepare.log").read_text()
    assert Path.cwd() != tmp_path


def test_a_message_to_the_user_ends_the_script_alone(tmp_path):
    run_script("prepare", configfiles=[TINY], directory=tmp_path)
    with pytest.raises(SystemExit):
        run_script("sample", configfiles=[TINY], config={"budget": {"params": [1, 2]}}, directory=tmp_path)
    assert "budget" in (tmp_path / "results/tiny/logs/sample.log").read_text()
