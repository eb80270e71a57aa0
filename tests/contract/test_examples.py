"""The script for timm's networks and the Python of the documents run and show what they say."""

import re
import runpy
import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
#: Pages whose Python is run here, or by another test.
HERE = {"README.md", "docs/your-network.md", "docs/your-own-images.md", "docs/vit-six.md"}
ELSEWHERE = {
    "docs/extending.md": "tests/workflow/test_extending.py",
    "docs/running.md": "tests/workflow/test_module.py",  # it is Snakemake's Python
    "docs/store-format.md": "tests/unit/test_store.py",
}


def run_blocks(page: str) -> dict:
    """Run the blocks of Python of a page, one after the other, and return their names."""
    names = {}
    for block in BLOCK.findall((ROOT / page).read_text()):
        exec(block, names)
    return names


def test_every_page_with_python_is_run():
    pages = {str(page.relative_to(ROOT)) for page in [*ROOT.glob("*.md"), *ROOT.glob("*/*.md")]}
    assert {page for page in pages if BLOCK.search((ROOT / page).read_text())} == HERE | set(ELSEWHERE)
    assert all((ROOT / test).exists() for test in ELSEWHERE.values())


def test_the_script_scores_plots_and_picks(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    names = runpy.run_path(str(ROOT / "examples/score_timm.py"))
    assert names["table"].shape == (5, 7) and np.isfinite(names["table"].to_numpy()).all()
    assert f"Picked: {names['best']}" in capsys.readouterr().out and names["OUTPUT"].stat().st_size > 10_000


@pytest.mark.cluster  # four seconds
def test_five_lines_of_python(capsys):
    card = run_blocks("README.md")["card"]
    assert capsys.readouterr().out.startswith(f"{card['lswag']} [")


def test_a_network_of_ones_own(capsys):
    card = run_blocks("docs/your-network.md")["card"]
    assert np.isfinite(card["lswag"]) and "no linear layer of an attention" in capsys.readouterr().out
    assert len(card.scores["zico"].components["per_layer"]) == len(card.axes["layer"].names) == 3


def test_an_exported_network_is_loaded(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "tests/data/version-0.1/export", tmp_path / "results/clothes/export/winner")
    monkeypatch.chdir(tmp_path)
    model = run_blocks("docs/your-own-images.md")["model"]
    look = model.pretrained_cfg
    assert model(torch.zeros(1, *look["input_size"])).shape == (1, look["num_classes"]) and not model.training


def test_the_tables_of_vit_six():
    tables = run_blocks("docs/vit-six.md")["tables"]
    assert list(tables) == ["cifar10", "fashion", "digits", "sphere", "grocery", "clothing"]
