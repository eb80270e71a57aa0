"""Numbers of README and docs come from recorded result files; commands and links exist."""

import importlib
import json
import re
from pathlib import Path

import yaml

from libranas.spaces import make_space

ROOT = Path(__file__).resolve().parents[2]


def test_numbers_of_the_pages_are_those_of_the_recorded_runs(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    record = importlib.import_module("record")
    for path, texts in record.places().items():
        page = path.read_text()
        assert all(f"<!-- {mark} -->" in page for mark in texts)
        assert record.filled(page, texts) == page, "run benchmarks/record.py"


def test_the_accuracy_on_photographs_is_the_recorded_one_and_better_than_a_probe():
    result = json.loads((ROOT / "benchmarks/training/clothing.json").read_text())
    mean, low, high, probe = (
        100 * number
        for number in (*map(result["test_accuracy"].get, ("mean", "low", "high")), result["probe"]["test_accuracy"])
    )
    assert len({run["seed"] for run in result["runs"]}) == 3 and probe < low < mean < high
    told = " ".join((ROOT / "benchmarks/README.md").read_text().split())
    assert f"**{mean:.1f} % ({low:.1f} to {high:.1f})**" in told and f"{probe:.1f} %" in told
    recipe = " ".join((ROOT / "libranas/training/recipes/small-images.yaml").read_text().split())
    assert f"{mean:.1f} % top-1" in recipe and f"{probe:.1f} %" in recipe


def test_the_default_space_is_as_large_as_the_documents_say():
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    millions = round(make_space(config["space"], 8, 1, 10).size() / 1e6)
    assert all(f"{millions} million" in (ROOT / name).read_text() for name in ("README.md", "config.yaml"))


def test_the_readme_is_short_and_its_commands_and_links_exist():
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    assert len(readme.split()) <= 700
    for target in ("run", "test", "test-cluster"):
        assert f"make {target}" in readme and f"\n{target}:" in makefile
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "config").glob("*.md")]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"
    nav = re.findall(r": ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert {page.name for page in (ROOT / "docs").glob("*.md")} <= set(nav), "mkdocs.yml lists every page"
    presets = (ROOT / "docs/running.md").read_text()
    for preset in (ROOT / "config").glob("*.yaml"):
        assert f"config/{preset.name}" in presets, f"{preset.name} is not mentioned"
