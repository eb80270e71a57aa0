"""The README's numbers come from recorded result files, and its commands are those of the Makefile."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_numbers_of_the_readme_are_those_of_the_recorded_run():
    spec = importlib.util.spec_from_file_location("record", ROOT / "benchmarks" / "record.py")
    record = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(record)
    readme = (ROOT / "README.md").read_text()
    assert all(f"<!-- {mark} -->" in readme for mark in ("results", "agreement", "published"))
    assert record.filled(readme) == readme, "run benchmarks/record.py"


def test_commands_of_the_readme_exist():
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for target in ("run", "test"):
        assert f"make {target}" in readme and f"\n{target}:" in makefile
    for link in ("docs/architecture.md", "docs/store-format.md", "docs/decisions.md", "docs/your-own-images.md"):
        assert link in readme and (ROOT / link).is_file()
    for preset in (ROOT / "config").glob("*.yaml"):
        assert f"config/{preset.name}" in readme, f"{preset.name} is not mentioned"
