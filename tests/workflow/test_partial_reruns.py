"""What runs again after a change: no more than depends on it, and all of that."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT, TINY, Run
from PIL import Image

from libranas import scores as store
from libranas.core.files import read_log
from libranas.core.provenance import STAGE_VERSIONS
from libranas.runs.inputs import state_of
from libranas.training.recipe import FOLDER

sys.path.insert(0, str(ROOT / "scripts"))
from mock_snakemake import mock_snakemake, run_script

CONFIG = yaml.safe_load(TINY.read_text())
ADDED = [*CONFIG["score"]["proxies"], "az_trainability"]

REPORT = {"report": 1}
EXPORTED = {"export": 1, **REPORT}
COMPARED = {"compare": 1, **EXPORTED}
TRAINED = {"train": 9, **COMPARED}
SEARCHED = {"search": 3, "select": 1, **TRAINED}
CHOSEN = {"libra": 1, **SEARCHED}
LAYERED = {"layers": 1, **CHOSEN}
MERGED = {"merge": 1, **LAYERED}
SCORED = {"score": 2, **MERGED}
LABELLED = {"benchmark_train_shard": 2, "benchmark_train": 1, **CHOSEN}
SAMPLED = {"sample": 1, **SCORED, **LABELLED}
EVERYTHING = {"prepare": 1, **SAMPLED}


@pytest.mark.parametrize(
    ("changes", "planned"),
    [
        ({}, {}),
        ({"seed": 4}, EVERYTHING),
        ({"run": "another"}, EVERYTHING),
        ({"data": {"limit": {"train": 190}}}, EVERYTHING),
        ({"space": {"init_std": 0.2}}, SAMPLED),
        ({"budget": {"params": [5000, 12000]}}, SAMPLED),
        ({"sample": {"count": 41}}, SAMPLED),
        ({"score": {"proxies": ADDED}}, SCORED),
        ({"score": {"proxies": CONFIG["score"]["proxies"][1:]}}, SCORED),
        ({"score": {"seeds": 3}}, SCORED),
        ({"score": {"options": {"pieces": 4}}}, SCORED),
        ({"score": {"max_failed": 0.2}}, MERGED),
        ({"layers": {"rule": "valley"}}, LAYERED),
        ({"layers": {"psi": "all"}}, LAYERED),
        ({"benchmark": {"recipe": {"lr": 0.02}}}, LABELLED),
        ({"benchmark": {"count": 23}}, LABELLED),
        ({"benchmark": {"supernet": {"lr": 0.02}}}, REPORT),  # not used; the report shows the configuration
        ({"benchmark": {"method": "supernet"}}, {"benchmark_supernet": 1, **CHOSEN}),
        ({"libra": {"mode": "literal"}}, CHOSEN),
        ({"search": {"evaluations": 41}}, SEARCHED),
        ({"search": {"parents": 3}}, SEARCHED),
        ({"train": {"recipe": {"epochs": 11}}}, TRAINED),
        ({"train": {"seeds": 4}}, {**TRAINED, "train": 3}),
    ],
    ids=lambda value: re.sub(r"[{}' ]", "", str(value))[:40] if value is not None else None,
)
def test_a_changed_configuration_reruns_what_depends_on_it(finished, changes, planned):
    assert finished.planned(changes=changes) == planned


def test_files_that_the_configuration_names_are_parameters_by_their_content(tmp_path, monkeypatch):
    """Snakemake reruns a rule whose parameters change; of files it sees newer times alone."""
    monkeypatch.chdir(tmp_path)
    recipe = (FOLDER / "smoke.yaml").read_text().replace("weight_decay: ", "weight_decay: 1")
    files = ["tables/nasbench201-cifar10.csv", "scores/nasbench201.csv", "table.csv", "reference.yaml", "model/w"]
    for path in map(Path, [*files, "recipe.yaml"]):
        path.parent.mkdir(exist_ok=True)
        path.write_text(recipe if path.stem == "recipe" else path.stem)
    config = {
        "benchmark": {"method": "table", "table": "table.csv"},
        "published": {"tables": "tables", "scores": "scores"},
        "train": {"reference": "reference.yaml", "recipe": {"base": "recipe.yaml", "teacher": "local-dir:model"}},
        "full_training": {
            "recipe": "recipe.yaml",
            "data": "folder:tables",
            "options": ["--weights=model/w", "--compile"],
        },
    }
    which = {"train": {"role": "winner", "seed": 0}, "published_table": {"table": "nasbench201-cifar10"}}
    for rule, named in {
        "sample": ["table.csv"],
        "benchmark_table": ["table.csv"],
        "select": ["reference.yaml"],
        "train": ["model"],
        "published_table": files[:2],
        "full_training": ["recipe.yaml", "tables", "model/w", "--compile"],
    }.items():
        job = mock_snakemake(rule, configfiles=[TINY], config=config, directory=tmp_path, **which.get(rule, {}))
        assert job.params.files == [state_of(path) for path in named], rule
    assert job.config["train"]["recipe"]["weight_decay"] >= 10


def test_images_that_are_gone_leave_what_was_made_of_them(tmp_path):
    for i in range(96):
        path = tmp_path / "images" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8), np.uint8)).save(path)
    data = {"adapter": "folder", "path": str(tmp_path / "images"), "limit": None}
    which = {"configfiles": [TINY], "config": {"data": data}, "directory": tmp_path}
    ran = run_script("prepare", **which).params.files
    (tmp_path / "images/a/.DS_Store").write_text("hidden")
    assert mock_snakemake("prepare", **which).params.files == ran
    (tmp_path / "images/a/0.png").rename(tmp_path / "images/b/0.png")
    assert mock_snakemake("prepare", **which).params.files != ran
    shutil.rmtree(tmp_path / "images")
    assert mock_snakemake("prepare", **which).params.files == ran


DOWNSTREAM = {
    "prepare": EVERYTHING,
    "sample": SAMPLED,
    "latency": {},  # tiny.yaml has no use for latencies
    "score": SCORED,
    "layers": LAYERED,
    "benchmark": LABELLED,
    "agreement": {},  # no stage of the report needs it
    "libra": CHOSEN,
    "search": SEARCHED,
    "train": TRAINED,
    "export": EXPORTED,
    "report": REPORT,
}


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    """A copy of the checkout, to be changed."""
    folder = tmp_path_factory.mktemp("product")
    for name in ("Snakefile", "config.yaml"):
        shutil.copy2(ROOT / name, folder)
    for name in ("rules", "scripts", "libranas", "config", "profiles"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.parametrize("stage", [None, *STAGE_VERSIONS])
def test_a_raised_stage_version_reruns_the_stage_and_what_follows(finished, product, stage):
    source = (ROOT / "libranas/core/provenance.py").read_text()
    entry = f'"{stage}": {STAGE_VERSIONS.get(stage)},'
    raised = source.replace(entry, f'"{stage}": {STAGE_VERSIONS.get(stage, 0) + 1},')
    assert (raised != source) == (stage is not None)
    (product / "libranas/core/provenance.py").write_text(raised)
    assert Run(finished.folder, product).planned() == ({} if stage is None else DOWNSTREAM[stage])


def test_a_changed_script_reruns_its_stage(finished, product):
    (product / "libranas/core/provenance.py").write_text((ROOT / "libranas/core/provenance.py").read_text())
    script = product / "scripts/compare.py"
    original = script.read_text()
    script.write_text(original + "# a change\n")
    try:
        assert Run(finished.folder, product).planned() == COMPARED
    finally:
        script.write_text(original)


def test_an_added_proxy_is_computed_alone(copied):
    target = "results/tiny/scores/scores.h5"
    before = store.read(copied.folder / target)
    logs = {path: path.read_bytes() for path in copied.results.glob("state/score/*.jsonl")}
    copied.succeed(target, changes={"score": {"proxies": ADDED}})
    added = []
    for path, old in logs.items():
        assert path.read_bytes().startswith(old)
        added += [json.loads(line) for line in path.read_bytes()[len(old) :].splitlines()]
    assert {tuple(record["card"]["scores"]) for record in added} == {("az_trainability",)}
    assert len(added) == len({(r["arch"], r["seed"]) for r in added}) == 40 * 2
    after = store.read(copied.folder / target)
    assert set(after.proxies) == set(ADDED)
    assert np.isfinite(after.proxies["az_trainability"].value_AS).all()
    for name, table in before.proxies.items():
        assert table.value_AS.tobytes() == after.proxies[name].value_AS.tobytes()


def test_other_labels_score_no_candidate_again(copied):
    """The scores in the logs are halved: a search that used them again has halves."""
    target = "results/tiny/search/random.csv"
    before = pd.read_csv(copied.folder / target)
    for path in copied.results.glob("state/search/*.jsonl"):
        records = read_log(path)
        for record in records:
            record["detail"] = {name: value / 2 for name, value in record["detail"].items()}
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    copied.succeed(target, changes={"libra": {"calibration": 11}})
    after = pd.read_csv(copied.folder / target)
    scores = [name for name in before if name.startswith("score_")]
    assert scores and after["architecture"].equals(before["architecture"])
    np.testing.assert_allclose(after[scores], before[scores] / 2)
    assert not after["fitness"].equals(before["fitness"])


def test_a_deleted_shard_is_rebuilt_alone(copied):
    shard, other = (copied.results / f"scores/shards/{k}.h5" for k in (1, 0))
    before, untouched = store.read(shard), other.stat().st_mtime_ns
    shard.unlink()
    assert copied.planned() == {**SCORED, "score": 1}
    (copied.results / "state/score/1.jsonl").unlink()
    copied.succeed("results/tiny/scores/shards/1.h5")
    assert store.content_sha256(store.read(shard)) == store.content_sha256(before)
    assert other.stat().st_mtime_ns == untouched
