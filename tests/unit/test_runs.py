"""The folder of a run: what its paths, keys and settings are."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from libranas.core.files import read_json, read_log
from libranas.runs import folder
from libranas.runs.files import FILES
from libranas.runs.folder import RunFolder
from libranas.spaces import make_space
from libranas.training.recipe import ShortRecipe

VIT = Path(__file__).resolve().parents[2] / "benchmarks/vit"


def test_a_path_is_named_once_and_filled_in():
    run = RunFolder("results/digits", {})
    assert len(set(FILES.values())) == len(FILES)
    assert run.path("shard", shard=3) == Path("results/digits/scores/shards/3.h5")
    with pytest.raises(KeyError):
        run.path("shard")


@pytest.mark.parametrize("name", ["vit-cifar10", "vit-clothing"])
def test_kept_trainings_keep_their_key(name, monkeypatch):
    """The recorded trainings have the key of their settings and of the stage's version that made them."""
    recorded = read_json(VIT / name / "conditions.json")
    monkeypatch.setattr(folder, "stage_version", lambda stage: f"{stage} 1")
    monkeypatch.setattr(folder, "version", recorded["facts"]["packages"].__getitem__)
    recorded["space"]["preset"] = "digits-autoformer"  # its name at that time was digits; all choices are listed
    run, data = RunFolder(".", recorded), recorded["data"]
    run.manifest = {
        "content_sha256": recorded["images"]["content_sha256"],
        "image_size": data["image_size"],
        "channels": data["channels"],
        "classes": range(10),
    }
    recipe = ShortRecipe(**recorded["benchmark"]["recipe"])
    keys = {record["key"] for record in read_log(VIT / name / "trainings.jsonl")}
    assert keys == {run.key("benchmark", recipe, recorded["seed"], "cpu")}


def test_a_key_changes_with_the_settings_and_the_version_of_the_stage(monkeypatch):
    run = RunFolder(".", {})
    before = run.key("search", "blend")
    assert run.key("search", "ridge") != before == RunFolder("elsewhere", {}).key("search", "blend")
    monkeypatch.setattr(folder, "stage_version", lambda stage: f"{stage} 99")
    assert run.key("search", "blend") != before


def test_a_part_of_the_sample_is_read_like_all_of_it(tmp_path):
    settings, rng = {"family": "autoformer", "preset": "digits"}, np.random.default_rng(0)
    run = RunFolder(tmp_path, {"space": settings, "score": {"proxies": ["zico", "nwot"]}})
    run.manifest = {"image_size": 8, "channels": 1, "classes": range(10)}
    archs = [make_space(settings, 8, 1, 10).sample(rng) for _ in range(6)]
    table = pd.DataFrame({"id": [arch.id for arch in archs], "shard": [0, 1] * 3})
    for name in ("archs", "table"):
        run.path(name).parent.mkdir()
    table.assign(architecture=[arch.json for arch in archs]).to_csv(run.path("archs"), index=False)
    scores = pd.DataFrame(rng.normal(size=(6, 3)), columns=["zico", "other", "nwot"])
    table.drop(columns="shard").join(scores).to_csv(run.path("table"), index=False, float_format="%.17g")
    wanted = [archs[k] for k in (4, 1, 5)]
    part = run.archs(ids=pd.Index([arch.id for arch in wanted]))
    assert part == [archs[k] for k in (1, 4, 5)] and run.archs(1) == archs[1::2] and run.archs(1, 4) == archs[1:4:2]
    some, whole = run.sample_of(part), run.sample.take([1, 4, 5])
    pd.testing.assert_frame_equal(some.score_AP, whole.score_AP)
    pd.testing.assert_frame_equal(some.feature_AF, whole.feature_AF)
    pd.testing.assert_series_equal(some.params_A, whole.params_A)
    assert list(whole.score_AP["zico"]) == list(scores["zico"][[1, 4, 5]])
