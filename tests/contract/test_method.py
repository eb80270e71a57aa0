"""The numbers of docs/method.md are those of examples/method.py, where formulas and libranas agree."""

import importlib.util
import re
from pathlib import Path

import pytest

from libranas.zero_cost.registry import PROXIES

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/method.md").read_text()
#: Proxies that draw random numbers, which the script leaves to libranas.
DRAWN = {"az_expressivity", "az_progressivity", "az_trainability", "meco", "zen"}


@pytest.fixture(scope="module")
def method():
    spec = importlib.util.spec_from_file_location("method", ROOT / "examples/method.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_proxy_has_its_number_and_the_formulas_give_it(method):
    printed = {name: float(number) for name, number in re.findall(r"^\* `(\w+)` = \*\*(\S+)\*\*: ", PAGE, re.M)}
    value, worked = method.scores(), method.worked()
    assert set(printed) == set(value) == set(PROXIES)
    assert worked == pytest.approx({name: value[name] for name in value if name not in DRAWN}, rel=1e-6)
    assert printed == pytest.approx(value, rel=1e-4)


def test_the_table_of_libra_is_what_the_algorithm_sees(method):
    choice = method.libra()
    lines = [
        f"| {name} | {rho:.3f} | {choice.bias[name]:.3f} | "
        + (f"{choice.information_gain[name]:.3f} |" if name in choice.information_gain else "|")
        for name, rho in sorted(choice.rho.items(), key=lambda item: -item[1])
    ]
    assert re.search(r"<!-- libra -->\n\|.*\n\|[-|]*\n(.*?)\n<!-- /libra -->", PAGE, re.S)[1] == "\n".join(lines)
    for place in ("z1", "z2", "z3"):
        assert re.search(rf"`{place}` is {getattr(choice, place)}\b", PAGE)
