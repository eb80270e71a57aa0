"""Scoring of architectures: what a score depends on, progress that survives, and the fitness of a search."""

import multiprocessing
import sys
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
import torch

from libranas import scores as store
from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.core.files import AppendLog, read_log
from libranas.predictors.base import Predictor
from libranas.predictors.ranks import ReferenceRanks
from libranas.scores import layer_window as layers
from libranas.scores.layer_window import LayerWindow
from libranas.scores.shard import score_shard
from libranas.search.fitness import Fitness
from libranas.search.run import run as search_run
from libranas.search.strategies.random import RandomSearch
from libranas.search.workers import shared_out
from libranas.spaces import AutoFormerSpace, Budget
from libranas.zero_cost import registry as proxies
from libranas.zero_cost import scorer as scoring
from libranas.zero_cost.scorer import Readout, Scorer

SPACE = AutoFormerSpace((8, 12), (2, 3), (1, 2), (1.5, 2.0), 4, 8, 4, 1, 4, max_relative_position=1)
ARCHS = [SPACE.sample(np.random.default_rng(i)) for i in range(4)]
NAMES = ["params", "snip", "lswag_lambda", "lswag_psi", "lswag"]
WINDOW = LayerWindow(1, 2, 4)


@pytest.fixture
def scorer():
    generator = torch.Generator().manual_seed(0)
    return Scorer(SPACE, torch.randn(8, 1, 8, 8, generator=generator), torch.arange(8) % 4, "hash", seed=1)


@pytest.fixture
def calls(monkeypatch):
    """Names of the proxies of every call of the engine."""
    seen, score = [], scoring.engine.score

    def counted(model, inputs, targets, names, *args, **kwargs):
        seen.append(list(names))
        return score(model, inputs, targets, names, *args, **kwargs)

    monkeypatch.setattr(scoring.engine, "score", counted)
    return seen


def test_a_score_does_not_depend_on_the_company(scorer, tmp_path):
    whole = score_shard(scorer, ARCHS, 2, NAMES, tmp_path / "a")
    alone = score_shard(scorer, ARCHS[2:3], 2, NAMES, tmp_path / "b")
    np.testing.assert_array_equal(whole.proxies["snip"].value_AS[2:3], alone.proxies["snip"].value_AS)
    # Other proxies in the pass may change the order of float32 sums, and no more than that.
    single = score_shard(scorer, ARCHS[2:3], 2, ["snip"], tmp_path / "c")
    np.testing.assert_allclose(single.proxies["snip"].value_AS, alone.proxies["snip"].value_AS, rtol=1e-6)
    assert len(set(whole.proxies["snip"].value_AS.ravel())) == 8  # every architecture and seed is another network


@pytest.mark.parametrize("last", [False, True])
def test_a_score_that_cannot_be_written_ends_the_job(scorer, tmp_path, monkeypatch, last):
    def full(log, record):
        raise LibranasError("the disk is full", "make room")

    monkeypatch.setattr(AppendLog, "append", full)
    with pytest.raises(LibranasError, match="the disk is full"):
        score_shard(scorer, ARCHS[:1] if last else ARCHS, 1, ["snip"], tmp_path / "log")


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.95])
def test_a_killed_shard_goes_on_and_gives_the_same(scorer, tmp_path, calls, cut):
    whole = score_shard(scorer, ARCHS, 2, NAMES, tmp_path / "log")
    raw = (tmp_path / "log").read_bytes()
    (tmp_path / "log").write_bytes(raw[: int(cut * len(raw))])
    calls.clear()
    again = score_shard(scorer, ARCHS, 2, NAMES, tmp_path / "log")
    assert store.content_sha256(whole) == store.content_sha256(again)
    assert len(calls) == 8 - raw[: int(cut * len(raw))].count(b"\n")


def test_another_proxy_is_computed_alone(scorer, tmp_path, calls):
    score_shard(scorer, ARCHS, 1, ["params", "snip"], tmp_path / "log")
    calls.clear()
    both = score_shard(scorer, ARCHS, 1, ["params", "snip", "synflow"], tmp_path / "log")
    assert calls == [["synflow"]] * 4
    anew = score_shard(scorer, ARCHS, 1, ["params", "snip", "synflow"], tmp_path / "n")
    assert store.content_sha256(both) == store.content_sha256(anew)


def test_records_from_other_conditions_are_not_used(scorer, tmp_path, calls):
    score_shard(scorer, ARCHS, 1, ["snip"], tmp_path / "log")
    for changed in (replace(scorer, seed=2), replace(scorer, batch_sha256="x"), replace(scorer, options={"pieces": 4})):
        calls.clear()
        score_shard(changed, ARCHS, 1, ["snip"], tmp_path / "log")
        assert len(calls) == 4


def test_only_proxies_that_read_out_depend_on_the_images_of_the_readout(scorer):
    more = torch.randn(24, 1, 8, 8, generator=torch.Generator().manual_seed(2)), torch.arange(24) % 4
    reads = replace(scorer, readout=Readout("24 of others", lambda: tuple(map(torch.Tensor.numpy, more))))
    before, after = (s.keys(["nngp", "snip"]) for s in (scorer, reads))
    assert before["snip"] == after["snip"] and before["nngp"] != after["nngp"]
    own, others = (s.card(ARCHS[0], 0, ["nngp", "snip"]) for s in (scorer, reads))
    assert own["snip"] == others["snip"] and own["nngp"] != others["nngp"]
    as_batch = replace(scorer, inputs=more[0], targets=more[1])
    assert as_batch.card(ARCHS[0], 0, ["nngp"])["nngp"] == pytest.approx(others["nngp"], rel=1e-5)


def test_records_of_another_version_of_a_library_are_not_used(scorer, tmp_path, calls, monkeypatch):
    score_shard(scorer, ARCHS, 1, ["snip"], tmp_path / "log")
    calls.clear()
    monkeypatch.setattr(scoring, "version", lambda package: "0")
    score_shard(scorer, ARCHS, 1, ["snip"], tmp_path / "log")
    assert len(calls) == 4


def test_a_default_given_explicitly_changes_nothing(scorer, tmp_path, calls):
    score_shard(scorer, ARCHS, 1, ["snip"], tmp_path / "log")
    calls.clear()
    same = replace(scorer, options={"psi_samples": None, "precision": "float32", "lambda_exclude": []})
    assert same.conditions == scorer.conditions and repr(same.conditions) == repr(scorer.conditions)
    score_shard(same, ARCHS, 1, ["snip"], tmp_path / "log")
    assert calls == []


def test_conditions_hold_every_option_and_survive_the_file(scorer, tmp_path):
    scorer = replace(scorer, options={"window": (0.25, 1.0), "psi_merge": "sum"})
    store.write(tmp_path / "s.h5", score_shard(scorer, ARCHS[:1], 1, ["snip"], tmp_path / "log"))
    stored = store.read(tmp_path / "s.h5").provenance
    assert stored["conditions"] == scorer.conditions
    options = stored["conditions"]["options"]
    assert options.keys() == {field.name for field in fields(proxies.Options)}
    assert (options["window"], options["psi_merge"], options["precision"]) == ([0.25, 1.0], "sum", "float32")
    assert {"torch", "timm"} <= stored["packages"].keys()


def test_every_score_is_stored_with_cost_and_precision(scorer, tmp_path):
    names = [*NAMES, "synflow"]
    scores = score_shard(scorer, ARCHS[:2], 2, names, tmp_path / "log")
    precisions = {name: "float32" for name in NAMES}
    assert {name: table.precision for name, table in scores.proxies.items()} == {**precisions, "synflow": "float64"}
    for table in scores.proxies.values():
        cost = scores.passes[table.pass_name]
        np.testing.assert_array_equal(cost.seconds_AS, table.seconds_AS)
        assert (cost.seconds_AS > 0).all()
        if sys.platform == "linux":
            assert (cost.peak_bytes_AS > 1e6).all()
    costs = store.costs(scores).set_index("proxy")
    assert costs["shared"].to_dict() == {**dict.fromkeys(names, 4), "params": 1, "synflow": 1}


def test_a_shard_without_architectures_is_merged(scorer, tmp_path):
    """Also where a proxy shares the run of another pass, which no network of that shard has shown."""
    names = ["params", "lswag_sample"]
    some, none = (score_shard(scorer, archs, 1, names, tmp_path / str(len(archs))) for archs in (ARCHS, []))
    for name, scores in (("some", some), ("none", none)):
        store.write(tmp_path / f"{name}.h5", scores)
    for parts in (["some", "none"], ["none", "some"]):
        store.merge(tmp_path / "merged.h5", [tmp_path / f"{name}.h5" for name in parts])
        merged = store.read(tmp_path / "merged.h5")
        assert merged.archs == some.archs and merged.proxies["lswag_sample"].pass_name == "data"


def test_options_may_choose_another_pass_and_precision(scorer, tmp_path):
    scorer = replace(scorer, options={"synflow_ln": "identity", "precision": "float64"})
    scores = score_shard(scorer, ARCHS[:1], 1, ["synflow", "dss", "snip"], tmp_path / "log")
    passes = {name: table.pass_name for name, table in scores.proxies.items()}
    assert passes == {"dss": "synaptic", "snip": "data", "synflow": "synaptic_bare"}
    assert {table.precision for table in scores.proxies.values()} == {"float64"}
    assert (store.costs(scores)["seconds"] > 0).all() and (store.costs(scores)["shared"] == 1).all()


def test_a_new_version_of_a_part_makes_the_whole_stale(scorer, tmp_path, calls, monkeypatch):
    score_shard(scorer, ARCHS, 1, NAMES, tmp_path / "log")
    calls.clear()
    get, newer = proxies.get, replace(proxies.get("lswag_psi"), version=99)
    monkeypatch.setattr(proxies, "get", lambda name: newer if name == "lswag_psi" else get(name))
    score_shard(scorer, ARCHS, 1, NAMES, tmp_path / "log")
    assert calls == [["lswag_psi", "lswag"]] * 4


def test_another_proxy_leaves_stored_scores_valid(scorer, tmp_path, calls):
    """A registered proxy that nobody asks for changes no key, and so no score is computed again."""
    score_shard(scorer, ARCHS, 1, NAMES, tmp_path / "log")
    keys, conditions = scorer.keys(NAMES), scorer.conditions
    calls.clear()
    proxies.PROXIES.add(replace(proxies.get("snip"), name="another"))
    try:
        again = replace(scorer)  # its conditions are made anew
        assert again.keys(NAMES) == keys and again.conditions == conditions
        score_shard(again, ARCHS, 1, NAMES, tmp_path / "log")
        assert calls == []
        assert again.keys(["another"])["another"] not in keys.values()
    finally:
        proxies.PROXIES.remove("another")


@pytest.mark.parametrize("chosen", [["lswag_lambda", "snip"], ["lswag_psi"], ["lswag"], ["snip", "params"]])
def test_a_candidate_is_scored_like_the_reference_sample(scorer, tmp_path, chosen):
    """The window applies to whichever part of L-SWAG was chosen."""
    reference: pd.DataFrame = layers.table(score_shard(scorer, ARCHS, 2, NAMES, tmp_path / "log"), WINDOW)
    for arch in ARCHS:
        row = scorer.windowed_scores(arch, range(2), chosen, WINDOW, "window")
        assert row.keys() == set(chosen)
        for name in chosen:
            assert row[name] == pytest.approx(reference.loc[arch.id, name], rel=1e-6), name
    predictor = Predictor(tuple(chosen), ReferenceRanks.of(reference[chosen]))
    fitness = Fitness(scorer, predictor, 2, WINDOW, "window")
    values = [fitness(arch)[0] for arch in ARCHS]
    expected = np.log(reference[chosen].rank() / 5).sum(axis=1)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)
    assert fitness(ARCHS[0])[1].keys() == set(chosen)


def test_an_error_names_the_architecture(scorer, monkeypatch):
    monkeypatch.setattr(scoring.engine, "score", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError) as caught:
        scorer.card(ARCHS[0], 1, ["snip"])
    assert f"architecture {ARCHS[0].id}, seed 1" in caught.value.__notes__[0]


def test_workers_change_no_score_and_their_end_is_explained(scorer):
    predictor = Predictor(("snip", "lswag"), lambda sample: sample.score_AP["snip"] + sample.params_A.to_numpy())
    fitness = Fitness(scorer, predictor, 2, WINDOW, "window")
    torch.set_num_threads(1)
    expected = [fitness(arch) for arch in ARCHS]
    with shared_out(fitness, 2) as each:
        assert each is not map
        assert list(each(fitness, ARCHS)) == expected and list(each(fitness, ARCHS[:1])) == expected[:1]
        with pytest.raises(ValueError, match="not a member"):  # its own fault
            list(each(fitness, [ARCHS[1], ARCHS[0].replace(embed_dim=99)]))
        results = each(fitness, ARCHS * 20)
        next(results)
        for child in multiprocessing.active_children():
            child.kill()
        with pytest.raises(LibranasError, match=r"want of memory.*\n.*search\.workers"):
            list(results)
    blind = Fitness(scorer, Predictor((), lambda sample: sample.params_A.to_numpy()), 1, WINDOW, "window")
    with shared_out(blind, 2) as each:
        assert each is map  # nothing to score


def test_scores_that_a_search_of_the_run_has_are_not_computed_again(scorer, tmp_path, monkeypatch):
    """Whatever combiner they were computed for; and not under other conditions, proxies or versions."""
    predictor = Predictor(("snip",), lambda sample: sample.score_AP["snip"])
    fitness, path = Fitness(scorer, predictor, 1, WINDOW, "window"), tmp_path / "evolution.jsonl"
    search_run(RandomSearch(SPACE, Budget(), 1), fitness, 3, path, fitness.scores_key + "a combiner")
    seen = {record["arch"]: record["detail"] for record in read_log(path)}

    twice = Predictor(("snip",), lambda sample: 2 * sample.score_AP["snip"])
    other = Fitness(scorer, twice, 1, WINDOW, "window")
    other.recall([path, tmp_path / "missing.jsonl"])
    monkeypatch.setattr(Scorer, "windowed_scores", lambda *_: 1 / 0)
    for text, detail in seen.items():
        assert other(Arch.from_json(text)) == (2 * detail["snip"], detail)
    with shared_out(other, 2) as each:
        assert list(each(other, list(map(Arch.from_json, seen)))) == [(2 * d["snip"], d) for d in seen.values()]
    for differs in (
        Fitness(scorer, Predictor(("plain",), lambda sample: sample.score_AP["plain"]), 1, WINDOW, "window"),
        Fitness(scorer, predictor, 2, WINDOW, "window"),
        Fitness(replace(scorer, seed=99), predictor, 1, WINDOW, "window"),
    ):
        differs.recall([path])
        assert differs.known == {}
    monkeypatch.setattr(scoring, "version", lambda name: "0")
    upgraded = Fitness(replace(scorer), predictor, 1, WINDOW, "window")
    upgraded.recall([path])
    assert upgraded.known == {}
