"""The script for timm's networks and the Python of README.md and docs/your-network.md run and show what they say."""

import re
import runpy
from pathlib import Path

import matplotlib
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_blocks(page: str) -> dict:
    """Run the blocks of Python of a page, one after the other, and return their names."""
    names = {}
    for block in re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S):
        exec(block, names)
    return names


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
