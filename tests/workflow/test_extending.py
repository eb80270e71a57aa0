"""The five examples of docs/extending.md, installed as a package, through a run of the workflow to its report."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ENVIRONMENT
from sklearn.datasets import load_digits

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = re.findall(r"```python\n# my_plugins/(\w+)\.py\n(.*?)```", (ROOT / "docs/extending.md").read_text(), re.S)
POINTS = {
    "proxies": "mean_gradient",
    "spaces": "plain_cnn",
    "data_sets": "arrays",
    "strategies": "climbing",
    "combiners": "mean_rank",
}


@pytest.fixture
def extended(site, fresh, monkeypatch):
    """A folder for a run of Snakemake that finds the package."""
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", environment(site)["PYTHONPATH"])
    return fresh


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder with the package of the examples as an installation leaves it."""
    site = tmp_path_factory.mktemp("site")
    (site / "my_plugins").mkdir()
    (site / "my_plugins/__init__.py").touch()
    for name, text in EXAMPLES:
        (site / f"my_plugins/{name}.py").write_text(text)
    about = site / "my_plugins-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-plugins\nVersion: 1.0\n")
    groups = (f"[libranas.{group}]\nmine = my_plugins.{module}\n" for group, module in POINTS.items())
    (about / "entry_points.txt").write_text("\n".join(groups))
    bunch = load_digits()
    (site / "images").mkdir()
    np.save(site / "images/images.npy", np.round(bunch.images * (255 / 16)).astype(np.uint8))
    np.save(site / "images/labels.npy", bunch.target)
    return site


def environment(site: Path) -> dict:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]), "OMP_NUM_THREADS": "1"}


def test_every_kind_has_an_example():
    assert sorted(name for name, _ in EXAMPLES) == sorted(POINTS.values())


def test_the_command_line_lists_a_proxy_of_another_package(site):
    command = [sys.executable, "-m", "libranas", "proxies"]
    listed = subprocess.run(command, env=environment(site), stdout=subprocess.PIPE, text=True, check=True).stdout
    assert re.search(r"^mean_gradient +data ", listed, re.M)


def test_a_package_that_cannot_be_loaded_is_named(site, tmp_path):
    about = tmp_path / "broken-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[libranas.proxies]\nmine = not_there\n")
    command = [sys.executable, "-m", "libranas", "proxies"]
    done = subprocess.run(command, env=environment(tmp_path), stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and "mine = not_there of broken" in done.stderr and "uninstall" in done.stderr


def test_the_workflow_runs_with_all_five(site, extended):
    changes = {
        "data": {"adapter": "arrays", "path": str(site / "images")},
        "space": {"family": "plain_cnn", "widths": [4, 6, 8, 12]},
        "budget": {"params": None},
        "sample": {"count": 30, "shards": 1},
        "score": {"proxies": ["params", "mean_gradient", "nwot", "lswag_lambda", "lswag_psi"]},
        "layers": {"exclude": []},
        "benchmark": {"repeated": {"count": 0}, "recipe": {"epochs": 4, "lr": 0.03}},
        "libra": {"combiner": "mean_rank"},
        "search": {"method": "climbing", "evaluations": 45},
        "train": None,
    }
    extended.succeed(changes=changes)
    page = (extended.results / "report.html").read_text()
    for shown in ("plain_cnn", "arrays", "mean_gradient", "Hill climbing", "mean rank of all proxies"):
        assert shown in page, shown
    assert (extended.results / "search/climbing.csv").exists()


def test_a_new_proxy_leaves_stored_scores_valid(site, copied, monkeypatch):
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", environment(site)["PYTHONPATH"])
    assert copied.planned() == {}


def test_a_wrong_key_of_a_space_of_another_package_is_refused(extended):
    changes = {"space": {"family": "plain_cnn", "widhts": [4]}}
    assert extended.snakemake("-n", changes=changes) == 1
    assert "did you mean space.widths" in extended.output
