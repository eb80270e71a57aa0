"""Scripts are thin, and read no more than their rules declare."""

import ast
import os
import re
import sys

import pytest
from conftest import ROOT, TINY

sys.path.insert(0, str(ROOT / "scripts"))

from mock_snakemake import mock_snakemake, run_script

SCRIPTS = sorted(set((ROOT / "scripts").glob("[!_]*.py")) - {ROOT / "scripts/mock_snakemake.py"})
JOBS = [
    *(("prepare", {}), ("sample", {}), ("score", {"shard": 1}), ("merge", {}), ("layers", {})),
    *(("benchmark_train_shard", {"shard": 1}), ("benchmark_train", {}), ("libra", {})),
    *(("search", {"strategy": "params"}), ("search", {"strategy": "random"}), ("select", {})),
    *(("train", {"role": "winner", "seed": 1}), ("compare", {}), ("export", {}), ("report", {})),
]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.stem)
def test_scripts_are_thin(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 14, f"{path.name} has {len(lines)} lines: move work into libranas/runs/stages"
    tree = ast.parse("\n".join(lines))
    assert not [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef))]


def test_scripts_and_rules_are_one_to_one():
    rules = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "rules").glob("*.smk"))
    assert {path.name for path in SCRIPTS} == set(re.findall(r"scripts/([a-z]\w*\.py)", rules))


@pytest.mark.parametrize(
    ("rule", "wildcards"), JOBS, ids=lambda v: v if isinstance(v, str) else "-".join(map(str, v.values()))
)
def test_a_script_needs_what_its_rule_declares_and_no_more(finished, tmp_path, rule, wildcards):
    """With nothing but the declared inputs, and from scratch, the results are those of the whole run."""
    which = {"configfiles": [TINY], "directory": tmp_path, **wildcards}
    for path in mock_snakemake(rule, **which).input:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(finished.folder / path, tmp_path / path)
    for path in run_script(rule, **which).output:
        assert (tmp_path / path).exists()
        if path.endswith((".csv", ".bin")) and not path.endswith("costs.csv"):  # costs are seconds
            assert (tmp_path / path).read_bytes() == (finished.folder / path).read_bytes()
