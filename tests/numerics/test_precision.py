"""Scores in float32, float64 and by tensor cores, on a CPU and a GPU, are as equal as docs/precision.md says."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from libranas.networks import build
from libranas.spaces import make_space
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
    """Counts the operations that wait for a GPU."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("tensor_cores", [False, True])
def test_a_gpu_is_not_waited_for_at_every_layer(tensor_cores):
    """Single numbers are copied together at the end, so depth does not matter."""
    space, counts = make_space(NETWORKS["wide"][0], 8, 3, 4), []
    inputs, targets = torch.randn(8, 3, 8, 8), torch.arange(8) % 4
    for depth in (1, 6):
        arch = next(a for a in map(space.sample, map(np.random.default_rng, range(99))) if a["depth"] == depth)
        with Waits() as waits:
            score(build(space, arch, 0), inputs, targets, NAMES, tensor_cores=tensor_cores)
        counts.append(waits.count)
    assert counts[0] == counts[1] > 0
