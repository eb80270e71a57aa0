"""Pruning a supernet: which operations and edges survive, progress, and the scores of a supernet."""

import numpy as np
import pytest
import torch

from libranas.arch import Arch
from libranas.layers import LayerWindow
from libranas.pruning import FAMILY, SupernetScorer, prune
from libranas.scoring import Scorer
from libranas.spaces.darts import EDGES, KINDS, NODES, OPERATIONS, DARTSSpace, full_mask

SPACE = DARTSSpace(image_size=8, channels=1, classes=4, width=4, layers=3)
RNG = np.random.default_rng(0)
#: What each operation is worth on each edge, and each edge by itself.
WORTH = {kind: RNG.normal(size=(len(EDGES), len(OPERATIONS))) for kind in KINDS}


def value(supernet: Arch) -> float:
    return sum(
        WORTH[kind][e, OPERATIONS.index(op)] for kind in KINDS for e, ops in enumerate(supernet[kind]) for op in ops
    )


def test_the_most_valuable_operations_and_edges_survive(tmp_path):
    arch, scored = prune(lambda supernet: {"value": value(supernet)}, tmp_path / "log", "key")
    assert SPACE.contains(arch) and scored == 780
    for kind in KINDS:
        for place, node in enumerate(NODES):
            at = [e for e, (_, j) in enumerate(EDGES) if j == node]
            best = sorted(at, key=lambda e: -WORTH[kind][e].max())[:2]
            wanted = [(OPERATIONS[WORTH[kind][e].argmax()], EDGES[e][0]) for e in sorted(best)]
            assert list(arch[kind][2 * place : 2 * place + 2]) == wanted


def test_proxies_are_combined_by_rank(tmp_path):
    """Scale does not count, a constant proxy adds nothing, and what is not a number ranks last."""

    def scores(supernet):
        broken = "dil_conv_5x5" not in supernet["normal"][0] and len(supernet["normal"][0]) == 6
        v = float("nan") if broken else value(supernet)
        return {"value": 1e9 * v, "same": 1.0, "again": np.exp(v)}

    arch, _ = prune(scores, tmp_path / "log", "key")
    assert SPACE.contains(arch)


@pytest.mark.parametrize("cut", [0.0, 0.3, 0.75, 0.999])
def test_a_killed_pruning_goes_on(tmp_path, cut):
    whole, _ = prune(lambda supernet: {"value": value(supernet)}, tmp_path / "whole", "key")
    raw = (tmp_path / "whole").read_bytes()
    (tmp_path / "killed").write_bytes(raw[: int(cut * len(raw))])
    calls = []
    again, scored = prune(lambda s: calls.append(s) or {"value": value(s)}, tmp_path / "killed", "key")
    assert again == whole and scored == 780 and (tmp_path / "killed").read_bytes() == raw
    assert len(calls) == 780 - raw[: int(cut * len(raw))].count(b"\n")
    other, _ = prune(lambda s: {"value": -value(s)}, tmp_path / "killed", "other key")
    assert other != whole


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
        return supernets.table(arch, range(1), names, window, "window")[names]

    first = scores(mask())
    assert np.isfinite(first).all()
    torch.rand(1)
    other = scores(mask("sep_conv_5x5"))
    assert (scores(mask()) == first).all() and (other != first).all()


def test_supernets_share_their_weights(supernets, monkeypatch):
    seen = []
    monkeypatch.setattr("libranas.pruning.engine.score", lambda model, *args, **kwargs: seen.append(model))
    supernets.card(mask(), 0, ["snip"])
    supernets.card(mask("sep_conv_3x3"), 0, ["snip"])
    whole, part = (dict(model.named_parameters()) for model in seen)
    assert set(part) < set(whole) and all(torch.equal(part[name], whole[name]) for name in part)
    supernets.card(mask(), 1, ["snip"])
    assert not torch.equal(next(seen[2].parameters()), next(seen[0].parameters()))
