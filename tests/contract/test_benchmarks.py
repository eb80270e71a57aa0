"""Scripts in benchmarks/ are run rarely; that they still fit the package is checked here."""

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.py")))
def test_a_benchmark_finds_what_it_imports(monkeypatch, name):
    monkeypatch.syspath_prepend(FOLDER)
    before = set(sys.modules)
    try:
        assert importlib.import_module(name).__doc__
    finally:  # names such as `search` are those of many
        for other in set(sys.modules) - before:
            if getattr(sys.modules[other], "__file__", None) and Path(sys.modules[other].__file__).parent == FOLDER:
                del sys.modules[other]
