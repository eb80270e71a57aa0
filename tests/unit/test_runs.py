"""The folder of a run: what its paths, keys and settings are."""

from pathlib import Path

import pytest

from libranas.core.files import read_json, read_log
from libranas.runs import folder
from libranas.runs.files import FILES
from libranas.runs.folder import RunFolder
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
