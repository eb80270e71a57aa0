"""Ties the versions of stages and proxies to results, so that neither can change what it computes in silence.

Snakemake does not see changes inside the package; it sees the versions. For each stage a tiny fixed input is run
and compared with ``stage_results.json``, and each proxy is compared with ``proxy_results.json``. After a change that
is meant: raise the version of the stage or of the proxy, then

    python tests/contract/test_stage_versions.py

which writes the results of what is new or has a new version, and of nothing else.
"""

import json
import math
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from libranas import scores as store
from libranas.core.provenance import STAGE_VERSIONS
from libranas.core.random import stream_seed
from libranas.core.scorecard import Axis, ProxyScore, ScoreCard
from libranas.data import prepare as data
from libranas.data.reading import load_split
from libranas.export.model_card import model_card
from libranas.export.timm import export_timm
from libranas.labels import short_training as benchmark
from libranas.labels.agreement import agreement as compare_agreement
from libranas.labels.supernet import inherit, train_supernet
from libranas.latency.measure import measure
from libranas.latency.table import Latency
from libranas.networks import build
from libranas.predictors.selection import choose_and_judge
from libranas.scores import layer_window as layers
from libranas.search.history import history_table
from libranas.search.registry import STRATEGIES
from libranas.search.run import run as search_run
from libranas.search.selection import select
from libranas.spaces import AutoFormerSpace, Budget, Sampler
from libranas.spaces.file_formats import yaml_text
from libranas.training.images import ImageSet
from libranas.training.recipe import ShortRecipe, make_recipe
from libranas.training.train_and_test import train_and_test
from libranas.zero_cost import lswag
from libranas.zero_cost import registry as proxies
from libranas.zero_cost import score as engine
from libranas.zero_cost.scorer import Scorer

ROOT = Path(__file__).resolve().parents[2]
RECORD = Path(__file__).with_name("stage_results.json")
PROXY_RECORD = Path(__file__).with_name("proxy_results.json")

SPACE = AutoFormerSpace(
    embed_dim=(12, 16),
    depth=(2, 3),
    num_heads=(1, 2),
    mlp_ratio=(1.5, 2.0),
    head_dim=8,
    image_size=8,
    patch_size=2,
    channels=1,
    classes=10,
    max_relative_position=2,
)
DIGITS = {
    "adapter": "digits",
    "path": None,
    "image_size": 8,
    "channels": 1,
    "splits": {"val": 0.25, "test": 0.25},
    "limit": None,
    "max_broken": 0,
    "calibration": 16,
}


# -- one function a stage: folder -> JSON-ready results ----------------------------------------------------


def prepare(folder: Path) -> dict:
    manifest = data.prepare(DIGITS, folder, seed=1)
    return {
        "content_sha256": manifest["content_sha256"],
        "counts": {split: entry["count"] for split, entry in manifest["splits"].items()},
    }


def sample(folder: Path) -> dict:
    rng = np.random.default_rng(stream_seed(1, "sample"))
    archs = Sampler(SPACE, Budget(params=(4000, 12000)), rng).take(6)
    return {"ids": [a.id for a in archs], "params": [SPACE.params(a) for a in archs]}


def _scored_networks() -> tuple:
    rng = np.random.default_rng(0)
    inputs = torch.from_numpy(rng.normal(size=(8, 1, 8, 8)).astype("f4"))
    return inputs, torch.arange(8), Sampler(SPACE, Budget(), rng).take(2), rng


def score(folder: Path) -> dict:
    """What no proxy answers for: the initial weights, which are compared less closely. See :func:`proxy_values`."""
    inputs, targets, archs, _ = _scored_networks()
    cards = {arch.id: Scorer(SPACE, inputs, targets, "0", seed=4).card(arch, 1, ["snip", "params"]) for arch in archs}
    return {arch: {"from initial weights": float(f"{card['snip']:.3g}")} for arch, card in cards.items()}


def proxy_values() -> dict[str, dict[str, float]]:
    """Proxy to architecture to value. Weights come from numpy, whose streams are the same everywhere."""
    inputs, targets, archs, rng = _scored_networks()
    values = {name: {} for name in sorted(proxies.PROXIES)}
    for arch in archs:
        model = build(SPACE, arch, seed=0)
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.from_numpy(rng.normal(scale=0.2, size=tuple(p.shape))))
        card = engine.score(model, inputs, targets, seed=3, precision="float64")
        for name, of_proxy in values.items():
            of_proxy[arch.id] = card[name]
    return values


def _synthetic_scores() -> store.Scores:
    info = {
        name: {"version": 1, "orientation": 1, "pass": "data", "equation": "", "component_axes": axes}
        for name, axes in {
            "lswag": {},
            "lswag_lambda": {"lambda": ("layer",), "log_sigma": ("layer",)},
            "lswag_psi": {"words": ("activation",), "union": ("activation", "activation")},
        }.items()
    }
    archs = Sampler(SPACE, Budget(), np.random.default_rng(0)).take(4)
    cards = {}
    for a, arch in enumerate(archs):
        rng, L, M = np.random.default_rng(a), 2 + 4 * arch["depth"], arch["depth"]
        lambda_, log_sigma, words = rng.normal(9, 1, L), rng.normal(-6, 1, L), rng.integers(3, 9, M)
        union = np.array([[words[i : j + 1].sum() if i <= j else math.nan for j in range(M)] for i in range(M)], "f8")
        cards[arch.id, 0] = ScoreCard(
            {
                "lswag": ProxyScore(lambda_.sum() * words.sum()),
                "lswag_lambda": ProxyScore(lambda_.sum(), "", {"lambda": lambda_, "log_sigma": log_sigma}),
                "lswag_psi": ProxyScore(float(words.sum()), "", {"words": words.astype("f8"), "union": union}),
            },
            {
                "layer": Axis(tuple(f"layer{i}" for i in range(L)), tuple(i / L for i in range(L))),
                "activation": Axis(tuple(f"act{i}" for i in range(M)), tuple((3 + 4 * i) / L for i in range(M))),
            },
            {},
        )
    return store.collect(archs, [1] * 4, [1] * 4, [0], cards, info, {})


def read_layers(folder: Path) -> dict:
    scores = _synthetic_scores()
    curve = layers.curve(scores, bins=5)
    results = {"curve": curve["mean"].tolist()}
    for rule in ("spike", "valley"):
        choice = layers.choose_window(curve, rule)
        results[rule] = {
            "window": [choice.window.lo, choice.window.hi],
            **{psi: layers.table(scores, choice.window, psi).to_dict("list") for psi in lswag.PSI_RANGES},
        }
    return results


def _digits(folder: Path, count: int) -> tuple[ImageSet, ImageSet]:
    manifest = data.prepare(DIGITS, folder, seed=1)
    sets = []
    for split in ("train", "val"):
        images, labels = load_split(folder / "images.h5", split)
        sets.append(ImageSet.from_arrays(images[:count], labels[:count], manifest))
    return tuple(sets)


def label(folder: Path) -> dict:
    train_set, val = _digits(folder, 320)
    archs = Sampler(SPACE, Budget(), np.random.default_rng(0)).take(2)
    recipe = ShortRecipe(epochs=1, batch_size=8, lr=0.01, warmup_epochs=0, crop_padding=1)
    table = benchmark.train_each(SPACE, archs, train_set, val, recipe, [1] * len(archs), 1, folder / "log", "key")
    supernet, history = train_supernet(SPACE, train_set, recipe, 1, folder / "supernet.pt", "key")
    return {
        "ids": list(table["id"]),
        "trained": list(table["accuracy"]),
        "inherited": list(inherit(supernet, archs, val)["accuracy"]),
        "loss": history[0]["loss"],
    }


def agreement(folder: Path) -> dict:
    rng = np.random.default_rng(0)
    accuracy_A, ids = rng.normal(0.5, 0.1, 20), [f"a{i:02d}" for i in range(20)]
    rows = [(ids[i], s, accuracy_A[i] + rng.normal(0, 0.05)) for i in range(20) for s in range(3 if i < 8 else 1)]
    trained = pd.DataFrame(rows, columns=["id", "seed", "accuracy"])
    inherited = pd.DataFrame({"id": ids, "seed": 0, "accuracy": accuracy_A + rng.normal(0, 0.1, 20)})
    return compare_agreement(trained, inherited, pd.Series(accuracy_A, ids), seed=1)


def libra(folder: Path) -> dict:
    rng = np.random.default_rng(0)
    accuracy = rng.normal(size=60)
    columns = {
        name: accuracy * w + rng.normal(size=60) for name, w in zip("abcdef", (3, 2.5, 2, 1, 0, -1), strict=True)
    }
    ids = [f"n{i:02d}" for i in range(60)]
    settings = {
        "mode": "corrected",
        "combiner": "blend",
        "calibration": 30,
        "splits": 2,
        "window": 0.1,
        "duplicate": 0.98,
    }
    scores = pd.DataFrame(columns, ids)
    params = pd.Series(np.exp(0.5 * accuracy + rng.normal(size=60)), ids)
    results = {}
    for mode in ("corrected", "literal"):
        verdict = choose_and_judge(scores, pd.Series(accuracy, ids), params, {**settings, "mode": mode}, 1)
        results[mode] = {"proxies": list(verdict.choice["proxies"]), "held_out": verdict.choice["held_out"]["spearman"]}
    # trees and optimisers depend on the machine
    exact = ["params", "log_rank_all", "consensus", "z1", "libra_literal", "libra_corrected", "ridge_ranks"]
    methods = verdict.methods.set_index("method")["spearman"][exact]
    return {**results, "methods": methods.to_dict()}


def run_search(folder: Path) -> dict:
    budget = Budget(params=(4000, 14000))
    results, tables = {}, {}
    for name in ("evolution", "random", "params"):
        settings = {"population": 6, "parents": 3}
        searcher = STRATEGIES[name].searcher(SPACE, budget, 1, settings)
        fitness = STRATEGIES[name].evaluation(SPACE, lambda a: (sum(a["mlp_ratio"]) - a["embed_dim"] / 9, {}))
        history = search_run(searcher, fitness, 15, folder / name, "key")
        results[name] = [e.arch.id for e in history]
        tables[name] = history_table(history, SPACE)
    selected = select(tables, SPACE, budget, 1)
    return {**results, "selected": {role: entry["id"] for role, entry in selected.items()}}


def final_training(folder: Path) -> dict:
    train_set, val = _digits(folder, 160)
    arch = next(Sampler(SPACE, Budget(), np.random.default_rng(0)))
    random = {"crop_padding": 1, "hflip": True, "auto_augment": "rand-m5-mstd0.5", "erasing": 0.2, "mixup": 0.2}
    recipe = make_recipe({"epochs": 1, "batch_size": 16, "drop_path": 0.1, "ema": 0.5, "repeats": 2, **random})
    _, metrics = train_and_test(SPACE, arch, (train_set, val, val), recipe, (1, 0), folder / "state", "key")
    return {"loss": metrics["history"][0]["loss"], "lr": metrics["history"][0]["lr"], "id": metrics["id"]}


def exports(folder: Path) -> dict:
    """What is in the folder and in its card; the weights are the network's own."""
    arch = next(Sampler(SPACE, Budget(), np.random.default_rng(0)))
    machine = {"gpu": [], "cpu": "", "cores": 1, "python": "", "packages": {}, "libranas": "", "commit": "", "time": ""}
    card = model_card("title", {"n": 1}, {"a": 1}, {"d": 1}, {"r": 1}, machine, {"p": 1.0}, "mit")
    text = yaml_text(SPACE, arch)
    more = {"autoformer.yaml": text}
    export_timm(build(SPACE, arch, seed=0, timm=True), folder / "x", 8, list("0123456789"), (0.5,), (0.2,), card, more)
    config = json.loads((folder / "x/config.json").read_text())
    looks = {key: config["pretrained_cfg"][key] for key in ("input_size", "mean", "std", "crop_pct", "interpolation")}
    files = sorted(path.name for path in (folder / "x").iterdir())
    return {"files": files, "keys": sorted(config), "card": card, "images": looks, "network": text}


def latencies(folder: Path) -> dict:
    def timed(space, archs):
        return [Latency(t, t, t) for t in ((space.params(a) + 500 * a["depth"]) / 1000 for a in archs)]

    table, checked = measure(SPACE, timed, 4, 1)
    return {
        **table.to_dict(),
        "median_error": round(checked["median_error"], 9),
        "ids": [n["id"] for n in checked["networks"]],
    }


def report(folder: Path) -> dict:
    template = (ROOT / "libranas" / "report" / "template.html.j2").read_text(encoding="utf-8")
    return {"sections": re.findall(r'<section id="([^"]+)"', template)}


STAGES = {
    "prepare": prepare,
    "latency": latencies,
    "sample": sample,
    "score": score,
    "layers": read_layers,
    "benchmark": label,
    "agreement": agreement,
    "libra": libra,
    "search": run_search,
    "train": final_training,
    "export": exports,
    "report": report,
}
#: Relative tolerance of floating-point results; of the benchmark (accuracies) absolute.
TOLERANCE = {
    "latency": 1e-9,
    "score": 1e-9,
    "layers": 1e-12,
    "agreement": 1e-12,
    "libra": 1e-9,
    "train": 1e-3,
    "export": 1e-12,
    "benchmark": 0.02,
}


# -- comparison ----------------------------------------------------------------------------------------------


def differences(stage: str, ours, recorded, where: str = "") -> list[str]:
    """Where two JSON values differ beyond the stage's tolerance, in words."""
    if isinstance(ours, dict) and isinstance(recorded, dict):
        if ours.keys() != recorded.keys():
            return [f"{where or 'keys'}: {sorted(ours)} instead of {sorted(recorded)}"]
        return [d for k in ours for d in differences(stage, ours[k], recorded[k], f"{where}.{k}".lstrip("."))]
    if isinstance(ours, list) and isinstance(recorded, list) and len(ours) == len(recorded):
        pairs = zip(ours, recorded, strict=True)
        return [d for i, (a, b) in enumerate(pairs) for d in differences(stage, a, b, f"{where}[{i}]")]
    if isinstance(ours, float) and isinstance(recorded, float):
        tolerance = TOLERANCE[stage]
        absolute = tolerance if stage == "benchmark" else 0
        if ours == pytest.approx(recorded, rel=0 if absolute else tolerance, abs=absolute, nan_ok=True):
            return []
    elif ours == recorded:
        return []
    return [f"{where}: {ours!r} instead of {recorded!r}"]


def results_of(stage: str) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        return json.loads(json.dumps(STAGES[stage](Path(folder))))


def recorded(path: Path = RECORD) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def test_every_stage_is_recorded():
    assert STAGES.keys() == STAGE_VERSIONS.keys() == recorded().keys()


@pytest.mark.parametrize("stage", STAGES)
def test_results_change_only_with_the_version(stage):
    entry = recorded()[stage]
    if entry["version"] != STAGE_VERSIONS[stage]:
        pytest.fail(f"stage {stage} has a new version: regenerate {RECORD.name} (see the top of this file)")
    found = differences(stage, results_of(stage), entry["results"])
    if found:
        pytest.fail(
            f"results of stage {stage} changed: raise STAGE_VERSIONS['{stage}'] and regenerate\n  " + "\n  ".join(found)
        )


def test_values_of_a_proxy_change_only_with_its_version():
    """Its own version or that of a part of it. Another proxy, or a new one, leaves its entry as it is."""
    kept, values = recorded(PROXY_RECORD), proxy_values()
    assert kept.keys() == values.keys(), f"regenerate {PROXY_RECORD.name} (see the top of this file)"
    for name, of_proxy in values.items():
        if kept[name]["versions"] != proxies.versions([name]):
            pytest.fail(f"proxy {name} has a new version: regenerate {PROXY_RECORD.name} (see the top of this file)")
        if found := differences("score", of_proxy, kept[name]["results"]):
            pytest.fail(f"values of proxy {name} changed: raise its version and regenerate\n  " + "\n  ".join(found))


def test_a_changed_result_is_noticed():
    entry = {"a": [1.0, {"b": 2.0}], "id": "x"}
    assert differences("score", entry, json.loads(json.dumps(entry))) == []
    assert differences("score", {"a": [1.0, {"b": 2.0 + 1e-8}], "id": "x"}, entry) == [
        "a[1].b: 2.00000001 instead of 2.0"
    ]
    assert differences("score", {"a": [1.0], "id": "x"}, entry)
    assert differences("benchmark", {"acc": 0.5}, {"acc": 0.519}) == []
    assert differences("benchmark", {"acc": 0.5}, {"acc": 0.521})
    assert differences("score", {"v": math.nan}, {"v": 0.0})


def regenerate() -> None:
    """Write the results of what is new or has a new version; refuse where results changed without one."""
    torch.set_num_threads(1)
    refused = _regenerate(RECORD, {n: {"version": v} for n, v in STAGE_VERSIONS.items()}, results_of)
    values = proxy_values()
    refused += _regenerate(PROXY_RECORD, {n: {"versions": proxies.versions([n])} for n in values}, values.get, "score")
    if refused:
        sys.exit(f"results changed while the version is the same, raise it first: {', '.join(refused)}")


def _regenerate(path: Path, versions: dict[str, dict], results: Callable, tolerance_of: str = "") -> list[str]:
    """Write one record; the names of what is refused."""
    kept, refused = recorded(path), []
    for name, version in versions.items():
        ours = results(name)
        if name in kept and version.items() <= kept[name].items():
            if differences(tolerance_of or name, ours, kept[name]["results"]):
                refused.append(name)
            continue
        kept[name] = {**version, "results": ours}
        print(f"{name}: results recorded")
    path.write_text(json.dumps({name: kept[name] for name in versions}, indent=1) + "\n", encoding="utf-8")
    return refused


if __name__ == "__main__":
    regenerate()
