"""Networks of timm and torchvision have the values of plain per-sample gradients (``benchmarks/network_zoo.py``)."""

import importlib.util
from pathlib import Path

import pytest

_path = Path(__file__).resolve().parents[2] / "benchmarks" / "network_zoo.py"
_spec = importlib.util.spec_from_file_location("network_zoo", _path)
zoo = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(zoo)

#: Plain; weights without their module; a layer that sees no image; both; channels-first norms; multi-head attention.
SOME = ["vision_transformer", "beit", "swin_transformer_v2", "xcit", "convnext"]


@pytest.mark.parametrize("family", [*(f"timm:{name}" for name in SOME), "torchvision:vit"])
def test_a_family_has_the_values_of_autograd(family):
    result = zoo.compared(family)
    assert result.good, (result.error, result.missing, result.error or [result.cell(name) for name in zoo.PROXIES])


@pytest.mark.cluster
@pytest.mark.parametrize("family", zoo.families())
def test_no_family_has_another_value(family):
    result = zoo.compared(family)
    cells = [] if result.error else [result.cell(name) for name in zoo.PROXIES]
    assert not result.missing and not any(cell.startswith("WRONG") for cell in cells), (result.missing, cells)
    assert not result.error or result.error.startswith(("LibranasError", "ValueError: no small network")), result.error
