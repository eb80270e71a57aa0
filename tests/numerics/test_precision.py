"""Scores in float32, float64 and by tensor cores, on a CPU and a GPU, are as equal as docs/precision.md says."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from libranas.networks import build, device
from libranas.spaces import make_space
from libranas.zero_cost.passes import context
from libranas.zero_cost.registry import list_proxies
from libranas.zero_cost.score import score

TABLE = Path(__file__).parents[2] / "docs" / "precision.md"
#: Section `space`, image size and column of the table.
NETWORKS = {
    "autoformer": ({"family": "autoformer", "preset": "image32-patch8"}, 32, 0),
    "wide": ({"family": "autoformer", "preset": "digits"}, 8, 0),
    "nasbench201": ({"family": "nasbench201", "width": 4, "cells": 1}, 16, 1),
}
NAMES = [name for name in list_proxies() if name != "reg_swap"]


def tolerances(column: int) -> dict[str, float]:
    """Proxy to its tolerance; None where the documents promise nothing."""
    rows = [[cell.strip() for cell in line.strip("| \n").split("|")] for line in TABLE.read_text().splitlines()]
    table = {row[0]: row[1:] for row in rows if len(row) == 3}
    named = {name: row for names, row in table.items() for name in names.split(", ")}
    assert set(named) - {"proxies", "---", "all others"} <= set(NAMES)

    def of(name: str) -> float:
        text = named.get(name, named["all others"])[column]
        return math.inf if text == "may differ" else float(text)

    return {name: of(name) for name in NAMES}


@pytest.mark.parametrize("family", NETWORKS)
def test_scores_are_as_equal_as_the_documents_say(family):
    settings, size, column = NETWORKS[family]
    space = make_space(settings, size, 3, 4)
    inputs, targets = torch.randn(16, 3, size, size, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 4
    model = build(space, space.sample(np.random.default_rng(1)), 0)
    cards = {
        precision: score(model, inputs, targets, NAMES, precision=precision) for precision in ("float32", "float64")
    }
    cards["tensor cores"] = score(model, inputs, targets, NAMES, tensor_cores=True)
    if torch.cuda.is_available():
        model.to("cuda")
        cards["cuda"] = score(model, inputs, targets, NAMES)
        cards["tensor cores of a GPU"] = score(model, inputs, targets, NAMES, tensor_cores=True)
    exact = cards.pop("float64")
    for where, card in cards.items():
        for name, tolerance in tolerances(column).items():
            if math.isfinite(tolerance):
                found, expected = card.scores[name].value, exact.scores[name].value
                assert found == pytest.approx(expected, rel=tolerance, nan_ok=True), (where, name)
                assert card.scores[name].reason == exact.scores[name].reason
    closest = max(
        abs(cards["float32"].scores[name].value - exact.scores[name].value) for name in ("snip", "zico", "tcet")
    )
    assert closest > 0  # the two are not one computation
    assert any(cards["tensor cores"].scores[n].value != cards["float32"].scores[n].value for n in ("snip", "zico"))
    assert not any(getattr(m, "one_hot_positions", False) for m in model.modules())


class Waits(TorchDispatchMode):
    """Counts the operations that wait for a GPU: they read a number, or how large a result is depends on numbers."""

    count = 0
    operations = frozenset({"_local_scalar_dense", "equal", "_unique2", "unique_dim", "unique_consecutive", "nonzero"})
    operations |= {"masked_select", "bincount"}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name().removeprefix("aten::").split(".")[0]
        by_mask = name == "index" and any(x is not None and x.dtype == torch.bool for x in args[1])
        self.count += name in self.operations or by_mask
        return function(*args, **(kwargs or {}))


def copies(monkeypatch) -> list[str]:
    """Return a list to which every copy from a GPU adds its name, also in a hook of a backward pass."""
    found: list[str] = []

    def counted(name: str, function):
        return lambda tensor, *args, **kwargs: found.append(name) or function(tensor, *args, **kwargs)

    for name in ("tolist", "cpu"):
        monkeypatch.setattr(torch.Tensor, name, counted(name, getattr(torch.Tensor, name)))
    return found


def as_on_a_gpu(monkeypatch) -> None:
    """Let nothing be read before the end of a pass."""
    for module in (context, device):
        monkeypatch.setattr(module, "is_asynchronous", lambda x: True)


#: Without the option `tensor_cores` LAPACK takes a matrix at a time.
SPECTRA = {"dss", "meco", "az_expressivity", "az_progressivity", "az_trainability"}


@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize("tensor_cores", [False, True])
def test_a_gpu_is_not_waited_for_at_every_layer(tensor_cores, by_hand, monkeypatch):
    """Single numbers are copied together at the end, so depth does not matter."""
    as_on_a_gpu(monkeypatch)
    if not by_hand:
        monkeypatch.setattr(context, "follows", lambda *_: False)
    copied = copies(monkeypatch)
    names = [name for name in NAMES if tensor_cores or name not in SPECTRA]
    space, counts = make_space(NETWORKS["wide"][0], 8, 3, 4), []
    inputs, targets = torch.randn(8, 3, 8, 8), torch.arange(8) % 4
    for depth in (1, 6):
        arch = next(a for a in map(space.sample, map(np.random.default_rng, range(99))) if a["depth"] == depth)
        copied.clear()
        with Waits() as waits:
            score(build(space, arch, 0), inputs, targets, names, tensor_cores=tensor_cores)
        counts.append(waits.count + len(copied))
    assert counts[0] == counts[1] > 0


class HalfDead(torch.nn.Module):
    """The second layer's output is multiplied by zero at half of its units, whose weights then do not vary."""

    def __init__(self):
        super().__init__()
        self.first, self.act, self.second = torch.nn.Linear(192, 6), torch.nn.ReLU(), torch.nn.Linear(6, 8)
        self.last, self.alive = torch.nn.Linear(8, 4), (torch.arange(8) < 4).float()

    def forward(self, x):
        return self.last(self.second(self.act(self.first(x.flatten(1)))) * self.alive)


@pytest.mark.parametrize("images", [10, 70])  # patterns of one word and of two
@pytest.mark.parametrize("kind", ["autoformer", "with weights that do not vary"])
def test_scores_are_the_same_where_nothing_is_read_on_the_way(kind, images, monkeypatch):
    space = make_space(NETWORKS["wide"][0], 8, 3, 4)
    torch.manual_seed(0)
    model = build(space, space.sample(np.random.default_rng(0)), 0) if kind == "autoformer" else HalfDead()
    inputs, targets = torch.randn(images, 3, 8, 8), torch.arange(images) % 4
    at_once = score(model, inputs, targets, NAMES)
    as_on_a_gpu(monkeypatch)
    later = score(model, inputs, targets, NAMES)
    if kind != "autoformer":
        assert sum(at_once.scores["lswag_lambda"].components["dropped"]) >= 24
    for name, expected in at_once.scores.items():
        found = later.scores[name]
        assert (found.value, found.reason) == (pytest.approx(expected.value, rel=1e-12, nan_ok=True), expected.reason)
        for key, numbers in expected.components.items():
            np.testing.assert_allclose(found.components[key], numbers, rtol=1e-12, err_msg=f"{name} {key}")
