"""The README's numbers come from recorded result files, and its commands are those of the Makefile."""

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_numbers_of_the_readme_are_those_of_the_recorded_run():
    spec = importlib.util.spec_from_file_location("record", ROOT / "benchmarks" / "record.py")
    record = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(record)
    readme = (ROOT / "README.md").read_text()
    assert all(f"<!-- {mark} -->" in readme for mark in ("results", "agreement", "published"))
    assert record.filled(readme) == readme, "run benchmarks/record.py"


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


def test_commands_of_the_readme_exist():
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for target in ("run", "test"):
        assert f"make {target}" in readme and f"\n{target}:" in makefile
    for link in ("docs/architecture.md", "docs/store-format.md", "docs/decisions.md", "docs/your-own-images.md"):
        assert link in readme and (ROOT / link).is_file()
    for preset in (ROOT / "config").glob("*.yaml"):
        assert f"config/{preset.name}" in readme, f"{preset.name} is not mentioned"
