"""What the Snakemake workflow catalogue asks of a repository, as far as it concerns this layout."""

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_the_workflow_can_be_listed():
    readme = (ROOT / "README.md").read_text(encoding="utf-8").lower()
    assert "snakemake" in readme and "workflow" in readme
    assert (ROOT / "Snakefile").exists() and list(ROOT.glob("rules/*.smk"))
    assert (ROOT / "config/README.md").exists()


def test_what_the_catalogue_says_is_true():
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text(encoding="utf-8"))["usage"]
    deployment, workflow = usage["software-stack-deployment"], (ROOT / "Snakefile").read_text(encoding="utf-8")
    rules = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("rules/*.smk"))
    assert deployment["apptainer"] == ("container:" in workflow)
    assert deployment["conda"] == ("conda:" in rules)
    assert usage["report"] == ("report(" in rules)
    assert usage["mandatory-flags"]["flags"] == ""
