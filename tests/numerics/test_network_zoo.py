"""Networks of timm and torchvision have the values of plain per-sample gradients (``benchmarks/network_zoo.py``)."""

import importlib.util
import re
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


def light_families() -> list[str]:
    """Families of the recorded table whose network is quickly scored; the script takes an hour for all."""
    rows = (_path.parents[1] / "docs/network-zoo.md").read_text().splitlines()
    cells = [[cell.strip() for cell in row.split("|")] for row in rows if re.match(r"\| (timm|torchvision):", row)]
    return [row[1] for row in cells if row[4] == "64" and int(row[3].replace(",", "")) < 1_500_000]


@pytest.mark.cluster
@pytest.mark.parametrize("family", light_families())
def test_no_family_has_another_value(family):
    result = zoo.compared(family)
    assert result.good, (result.error, result.missing, result.error or [result.cell(name) for name in zoo.PROXIES])
