"""`libranas init`: one commented configuration of the default experiment and presets; nothing is overwritten."""

import tomllib
from pathlib import Path

import pytest
import yaml
from snakemake.utils import update_config

from libranas import workflow_folder
from libranas.cli import main
from libranas.config.checks import checked, own_keys
from libranas.config.presets import experiment, names
from libranas.core.errors import LibranasError

ROOT = Path(__file__).resolve().parents[2]
#: Presets that lie on top of another, as their first lines say.
ON_TOP = {"cifar10-gpu": "cifar10", "cifar100": "cifar10", "svhn": "cifar10", "pets": "clothing"}
ON_TOP["vit-benchmark-clothing"] = "vit-benchmark"


def repeated(node: yaml.MappingNode) -> list[str]:
    """Return keys that a mapping, or one below it, has twice."""
    keys = [key.value for key, _ in node.value]
    below = [value for _, value in node.value if isinstance(value, yaml.MappingNode)]
    return [key for key in keys if keys.count(key) > 1] + [key for value in below for key in repeated(value)]


def test_the_folder_of_the_workflow_is_this_checkout_and_its_presets_are_found():
    assert workflow_folder() == ROOT
    assert {"cifar10", "folder", "clothing"} <= set(names(ROOT)) and "schema" not in names(ROOT)


@pytest.mark.parametrize("preset", [None, *names(ROOT)])
def test_a_preset_over_the_default_experiment_is_what_snakemake_makes_of_the_files(preset):
    files = [ROOT / "config.yaml"] + [ROOT / f"config/{n}.yaml" for n in (ON_TOP.get(preset), preset) if n]
    config: dict = {}
    for file in files:
        update_config(config, yaml.safe_load(file.read_text()))
    text = experiment(ROOT, [preset] if preset else [], "Written by a test.")
    assert yaml.safe_load(text) == config | own_keys(config["space"])
    assert repeated(yaml.compose(text)) == []
    checked(yaml.safe_load(text))


def test_comments_stay_and_those_of_the_preset_take_the_place_of_others():
    text = experiment(ROOT, ["clothing"], "Written by a test.")
    assert text.startswith("# Photographs of clothes") and "# Written by a test." in text
    assert "  long: 4              # architectures that it trains like the winner, too\n" in text
    assert "space:                 # patch, stem" in text and "366 million" not in text
    assert "--configfile" not in text and "\nseed: 1                # master seed" in text


def test_presets_lie_on_top_of_each_other_in_their_order():
    both = yaml.safe_load(experiment(ROOT, ["cifar10-gpu", "cifar100"], ""))
    assert (both["data"]["adapter"], both["search"]["population"], both["run"]) == ("cifar100", 50, "cifar100")


def test_an_unknown_preset_names_those_that_exist():
    with pytest.raises(LibranasError, match=r"no preset cifar11[\s\S]*cifar10, cifar10-gpu.*folder"):
        experiment(ROOT, ["cifar11"], "")


def test_init_writes_a_folder_and_says_what_to_do_next(tmp_path, capsys):
    folder = tmp_path / "my run"
    assert main(["init", str(folder), "--preset", "folder"]) == 0
    told = capsys.readouterr().out
    assert "data.path" in told and f"cd '{folder}' && snakemake --cores all" in told
    assert yaml.safe_load((folder / "config.yaml").read_text())["data"]["path"] == "data/images"
    assert "`libranas init --preset folder`" in (folder / "config.yaml").read_text()
    for name in ("profiles/default/profile.yaml", "profiles/slurm/profile.yaml", "config/schema.yaml"):
        assert (folder / name).read_bytes() == (ROOT / name).read_bytes()


def test_init_overwrites_nothing(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("mine")
    assert main(["init", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path} has config.yaml already" in told and "another folder" in told
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
    assert (tmp_path / "config.yaml").read_text() == "mine"
    assert main(["init", str(tmp_path / "config.yaml")]) == 2 and "Traceback" not in capsys.readouterr().err


def test_a_package_without_its_workflow_is_explained(monkeypatch, tmp_path):
    monkeypatch.setattr("libranas.__file__", str(tmp_path / "libranas/__init__.py"))
    with pytest.raises(LibranasError, match="not with the package"):
        workflow_folder()
    (tmp_path / "libranas/workflow").mkdir(parents=True)
    (tmp_path / "libranas/workflow/Snakefile").touch()
    assert workflow_folder() == tmp_path / "libranas/workflow"


def test_the_version_stands_the_same_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
