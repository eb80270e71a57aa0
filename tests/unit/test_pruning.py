"""Pruning a supernet: which operations and edges survive, progress, and the scores of a supernet."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from libranas.core.arch import Arch
from libranas.scores.layer_window import LayerWindow
from libranas.search.pruning import FAMILY, SupernetScorer, prune
from libranas.spaces.cells.darts import EDGES, KINDS, NODES, OPERATIONS, DARTSSpace, full_mask
from libranas.training.images import ImageSet
from libranas.training.recipe import make_recipe
from libranas.training.train_and_test import train_and_test
from libranas.zero_cost.scorer import Scorer

ROOT = Path(__file__).resolve().parents[2]

SPACE = DARTSSpace(image_size=8, channels=1, classes=4, width=4, layers=3)
RNG = np.random.default_rng(0)
#: What each operation is worth on each edge, and each edge by itself.
WORTH = {kind: RNG.normal(size=(len(EDGES), len(OPERATIONS))) for kind in KINDS}


def value(supernet: Arch) -> float:
    return sum(
        WORTH[kind][e, OPERATIONS.index(op)] for kind in KINDS for e, ops in enumerate(supernet[kind]) for op in ops
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Arch, int, bytes]:
    """What a pruning by :func:`value` found, how many supernets it scored, and its log."""
    path = tmp_path_factory.mktemp("pruning") / "log"
    arch, scored = prune(lambda supernet: {"value": value(supernet)}, path, "key")
    return arch, scored, path.read_bytes()


def test_the_most_valuable_operations_and_edges_survive(whole):
    arch, scored, _ = whole
    assert SPACE.contains(arch) and scored == 780
    for kind in KINDS:
        for place, node in enumerate(NODES):
            at = [e for e, (_, j) in enumerate(EDGES) if j == node]
            best = sorted(at, key=lambda e: -WORTH[kind][e].max())[:2]
            wanted = [(OPERATIONS[WORTH[kind][e].argmax()], EDGES[e][0]) for e in sorted(best)]
            assert list(arch[kind][2 * place : 2 * place + 2]) == wanted


def test_a_killed_pruning_goes_on(whole, tmp_path):
    arch, _, raw = whole
    kept = raw[: int(0.7 * len(raw))]  # ends in the middle of a record
    (tmp_path / "log").write_bytes(kept)
    calls = []
    again, scored = prune(lambda s: calls.append(s) or {"value": value(s)}, tmp_path / "log", "key")
    assert again == arch and scored == 780 and (tmp_path / "log").read_bytes() == raw
    assert len(calls) == 780 - kept.count(b"\n")


def test_records_under_another_key_are_not_used_and_proxies_count_by_rank(whole, tmp_path):
    """Neither scale nor a constant proxy matters; what is not a number ranks last."""
    arch, _, raw = whole
    (tmp_path / "log").write_bytes(raw)

    def scores(supernet):
        lost = "dil_conv_5x5" not in supernet["normal"][0]  # it must stay, whatever the rest says
        return {"value": float("nan") if lost else 1e9 * value(supernet), "same": 1.0}

    other, _ = prune(scores, tmp_path / "log", "other key")
    assert other["reduce"] == arch["reduce"] and other["normal"][2:] == arch["normal"][2:]
    assert other["normal"][0] == ("dil_conv_5x5", 0)


# -- scores of supernets --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def supernets() -> SupernetScorer:
    rng = np.random.default_rng(0)
    inputs = torch.from_numpy(rng.normal(size=(24, 1, 8, 8)).astype("f4"))
    scorer = Scorer(SPACE, inputs, torch.arange(24) % 4, "batch", 1, {"pieces": 4})
    return SupernetScorer.like(scorer, width=4, layers=3, images=8)


def mask(drop: str = "") -> Arch:
    return Arch(FAMILY, {k: [[op for op in ops if op not in ("none", drop)] for ops in full_mask()[k]] for k in KINDS})


def test_the_images_are_balanced(supernets):
    assert supernets.targets.bincount().tolist() == [2] * 4 and len(supernets.inputs) == 8
    assert supernets.conditions["batch_size"] == 8 and "8 of 24" in supernets.conditions["batch_sha256"]


def test_a_score_depends_on_nothing_but_mask_and_seed(supernets):
    names, window = ["lswag", "snip"], LayerWindow(0, 1, 2)

    def scores(arch):
        return np.array(list(supernets.windowed_scores(arch, range(1), names, window, "window").values()))

    first = scores(mask())
    assert np.isfinite(first).all()
    torch.rand(1)
    other = scores(mask("sep_conv_5x5"))
    assert (scores(mask()) == first).all() and (other != first).all()


def test_supernets_share_their_weights(supernets, monkeypatch):
    seen = []
    monkeypatch.setattr("libranas.search.pruning.engine.score", lambda model, *args, **kwargs: seen.append(model))
    supernets.card(mask(), 0, ["snip"])
    supernets.card(mask("sep_conv_3x3"), 0, ["snip"])
    whole, part = (dict(model.named_parameters()) for model in seen)
    assert set(part) < set(whole) and all(torch.equal(part[name], whole[name]) for name in part)
    supernets.card(mask(), 1, ["snip"])
    assert not torch.equal(next(seen[2].parameters()), next(seen[0].parameters()))


# -- the winner -----------------------------------------------------------------------------------------------


def test_the_recipe_of_the_preset_trains_a_network_of_the_space(tmp_path):
    """Drop path and random erasing; one epoch, as the preset's are hours."""
    preset = yaml.safe_load((ROOT / "config" / "darts.yaml").read_text(encoding="utf-8"))
    recipe = make_recipe({**preset["train"]["recipe"], "epochs": 1, "batch_size": 8, "crop_padding": 1})
    assert recipe.drop_path == 0.2 and recipe.erasing > 0
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (24, 1, 8, 8), dtype=np.uint8))
    data = ImageSet(images, torch.arange(24) % 4, (0.5,), (0.25,), 4)
    arch = SPACE.sample(rng)
    model, metrics = train_and_test(SPACE, arch, (data, data, data), recipe, (1, 0), tmp_path, "key")
    assert all(cell.drop_path.drop_prob == 0.2 for cell in model.cells)
    assert np.isfinite(metrics["history"][0]["loss"]) and 0 <= metrics["test_accuracy"] <= 1
