"""Scripts in benchmarks/ are run rarely; that they still fit the package is checked here."""

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks"


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.py")))
def test_a_benchmark_finds_what_it_imports(monkeypatch, name):
    """As the first thing that runs: without the folders that pytest adds, and its modules, such as `conftest`."""
    monkeypatch.setattr(sys, "path", [str(FOLDER), *(p for p in sys.path if not p.startswith(str(ROOT / "tests")))])
    near = {n: m for n, m in sys.modules.items() if str(getattr(m, "__file__", None)).startswith(str(ROOT / "tests"))}
    for other in near:
        monkeypatch.delitem(sys.modules, other)
    before = set(sys.modules)
    try:
        assert importlib.import_module(name).__doc__
    finally:  # names such as `search` are those of many
        for other in set(sys.modules) - before:
            if str(getattr(sys.modules[other], "__file__", None)).startswith((str(FOLDER), str(ROOT / "tests"))):
                del sys.modules[other]
