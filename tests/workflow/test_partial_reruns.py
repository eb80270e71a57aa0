"""What runs again after a change: no more than depends on it, and all of that."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT, TINY, Run

from libranas import scores as store
from libranas.core.files import read_log
from libranas.core.provenance import STAGE_VERSIONS

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
