"""The configurations that are shipped pass the check, and a wrong one is explained by key and expectation."""

import copy
import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from libranas.config.__main__ import reference
from libranas.config.catalogue import catalogue
from libranas.config.checks import checked
from libranas.core.errors import LibranasError
from libranas.data.registry import DATA_SETS, table
from libranas.predictors.registry import COMBINERS
from libranas.search.registry import STRATEGIES
from libranas.search.selection import WINNERS
from libranas.search.strategies.nsga2 import OBJECTIVES
from libranas.spaces import FAMILIES, Budget, make_space
from libranas.training.recipe import ShortRecipe, TrainingRecipe, make_recipe
from libranas.zero_cost.options import Options
from libranas.zero_cost.registry import PROXIES

ROOT = Path(__file__).resolve().parents[2]
SCHEMA_PATH = ROOT / "config" / "schema.yaml"
DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
PRESET_FILES = sorted(p for p in (ROOT / "config").glob("*.yaml") if p != SCHEMA_PATH)


def merged(base: dict, update: dict) -> dict:
    """As Snakemake merges a --configfile into what the Snakefile names: sections by key, all else replaced."""
    out = copy.deepcopy(base)
    for key, value in update.items():
        out[key] = merged(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
    return out


def changed(key: str, value, base: dict = DEFAULT) -> dict:
    update = value
    for part in reversed(key.split(".")):
        update = {part: update}
    return merged(base, update)


def problem(config: dict) -> str:
    with pytest.raises(LibranasError) as caught:
        checked(config)
    assert "config/schema.yaml" in caught.value.todo
    return caught.value.what


def preset(path: Path) -> dict:
    """The configuration of a preset, with what its first line says that it goes on top of."""
    text = path.read_text(encoding="utf-8")
    below = re.match(r"# On top of config/([\w-]+)\.yaml", text)
    return merged(preset(ROOT / "config" / f"{below[1]}.yaml") if below else DEFAULT, yaml.safe_load(text))


SHIPPED = {"config": DEFAULT, **{p.stem: preset(p) for p in PRESET_FILES}}
shipped = pytest.mark.parametrize("name", SHIPPED)


# -- what is shipped -----------------------------------------------------------------------------------------


@shipped
def test_shipped_configurations_pass(name):
    config = checked(SHIPPED[name])
    assert checked(config) == config  # defaults are legal and filling them in is done once


@shipped
def test_shipped_spaces_and_budgets_are_feasible(name):
    config = checked(SHIPPED[name])
    space = make_space(config["space"], config["data"]["image_size"], config["data"]["channels"], 10)
    Budget.from_settings(config["budget"]).check(space)


def recipe_of(settings):
    return ShortRecipe(**settings)


@shipped
def test_shipped_recipes_are_recipes(name):
    config = checked(SHIPPED[name])
    final = config["train"] and config["train"]["recipe"]
    kinds = (
        (make_recipe, final),
        (recipe_of, config["benchmark"]["recipe"]),
        (recipe_of, config["benchmark"]["supernet"]),
    )
    for make, recipe in kinds:
        if recipe is not None:
            assert make(recipe).epochs >= 1
            assert not (recipe.get("hflip") and config["data"]["adapter"] in ("digits", "svhn"))
    assert Options(**config["score"]["options"])


def test_the_runs_of_presets_do_not_write_into_one_folder():
    runs = [config["run"] for config in SHIPPED.values()]
    assert len(set(runs)) == len(runs)


# -- the schema and the code ---------------------------------------------------------------------------------


def test_the_list_of_keys_is_up_to_date():
    said = "config/schema.yaml is out of date: python -m libranas.config config/schema.yaml"
    assert SCHEMA_PATH.read_text(encoding="utf-8") == reference(), said


def test_the_list_of_keys_has_every_key_with_its_default():
    listed = yaml.safe_load(SCHEMA_PATH.read_text(encoding="utf-8"))
    config = checked(DEFAULT)
    assert set(listed) == set(config)
    sections = {"data", "budget", "latency", "sample", "layers", "benchmark", "libra", "published", "search", "train"}
    for section in sections:
        assert set(listed[section]) == set(config[section])
    assert listed["data"]["splits"] == {"val": 0.2, "test": 0.2} and listed["train"]["recipe"]["eps"] == 1e-8
    assert set(listed["score"]["options"]) == {f.name for f in fields(Options)} - {"window", "features"}
    assert set(listed["train"]["recipe"]) == {f.name for f in fields(TrainingRecipe)} | {"base"}
    assert set(listed["benchmark"]["recipe"]) == {f.name for f in fields(ShortRecipe)}
    for family in FAMILIES.values():
        assert set(listed["space"][f"(family {family.name})"]) == set(family.keys)


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("score.proxies", PROXIES),
        ("data.adapter", DATA_SETS),
        ("libra.combiner", COMBINERS),
        ("search.method", STRATEGIES),
        ("space.family", FAMILIES),
        ("search.objectives", OBJECTIVES),
        ("search.winner", WINNERS),
    ],
)
def test_names_come_from_the_registries_and_the_code(key, names):
    value = ["nothing_such"] * 3 if key in ("score.proxies", "search.objectives") else "nothing_such"
    assert f"expected one of {', '.join(names)}, got 'nothing_such'" in problem(changed(key, value))


def test_what_is_registered_is_documented():
    assert table() in (ROOT / "docs" / "data-sets.md").read_text()
    said = "docs/catalogue.md is out of date: python -m libranas.config config/schema.yaml docs/catalogue.md"
    assert (ROOT / "docs" / "catalogue.md").read_text() == catalogue(), said
    assert all(f"| `{name}` |" in catalogue() for name in (*PROXIES, *COMBINERS, *STRATEGIES, *FAMILIES))


def test_defaults_are_filled_in_and_the_argument_is_left_alone():
    config = copy.deepcopy(DEFAULT)
    for section, key in (("score", "seeds"), ("benchmark", "count"), ("layers", "bins"), ("data", "splits")):
        del config[section][key]
    before = copy.deepcopy(config)
    full = checked(config)
    assert config == before
    assert (full["score"]["seeds"], full["benchmark"]["count"], full["layers"]["bins"]) == (3, 60, 10)
    assert full["data"]["splits"] == {"val": 0.2, "test": 0.2}
    assert full["results"] == "results" and full["data"]["max_broken"] == 0
    del config["budget"]
    assert checked(config)["budget"] == {"params": None, "macs": None, "latency": None}


def test_keys_of_another_family_are_left_out():
    config = checked(changed("space", {"family": "nasbench201", "width": 8}))
    assert config["space"] == {"family": "nasbench201", "width": 8}
    assert checked(changed("space.family", "pit"))["space"] == {"family": "pit"}


def test_a_preset_is_not_undone_by_the_choices_of_the_default():
    config = checked(changed("space.preset", "small"))
    assert make_space(config["space"], 224, 3, 10) == make_space(
        {"family": "autoformer", "preset": "small"}, 224, 3, 10
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_keys_of_a_family_are_those_of_its_space(family):
    """Whatever the check lets through changes the space that is made."""
    values = {"width": 12, "cells": 2, "layers": 6, "affine": False}
    values |= {"level": "macro", "task": "class_scene", "variant": "naslib"}
    values |= {"preset": "tiny", "embed_dim": [96], "depth": [3], "head_dim": "auto", "relative_position": False}
    values |= {"max_relative_position": 3, "init_std": 0.1, "num_heads": [6], "mlp_ratio": [1.5], "patch_size": 8}
    values |= {"pool": ["avg", "token"], "stem": "conv", "position": "sincos", "mlp": ["gelu", "swiglu"]}
    values |= {"qk_norm": True, "layer_scale": [False, True]}
    values |= {"base_dim": [8], "stage_depth": [[1], [1], [1]], "stride": 4}
    assert set(values) == {key for family in FAMILIES.values() for key in family.keys}
    base = {"family": family} | ({"preset": "small"} if family == "autoformer" else {})
    plain = make_space(base, 32, 3, 10)
    for key in FAMILIES[family].keys:
        extra = {"num_heads": [4]} if key == "head_dim" else {}  # that divide every width
        assert make_space(base | extra | {key: values[key]}, 32, 3, 10) != plain, key


# -- errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("sede", 1, "sede: unknown key; did you mean seed?"),
        ("data.adaptor", "digits", "data.adaptor: unknown key; did you mean data.adapter?"),
        ("train.recipe.epoch", 3, "train.recipe.epoch: unknown key; did you mean train.recipe.epochs?"),
        ("layers.zzz", 3, "layers.zzz: unknown key; known keys: bins, exclude, fixed, psi, rule"),
        ("score.options.units", "sample", "score.options.units: unknown key; did you mean score.options.unit?"),
        ("seed", "one", "seed: expected a whole number, got 'one'"),
        ("search.evaluations", "many", "search.evaluations: expected a whole number, got 'many'"),
        ("seed", -1, "seed: expected at least 0, got -1"),
        ("score", None, "score: expected a section, got None"),
        ("data", "digits", "data: expected a section, got 'digits'"),
        ("data.channels", 4, "data.channels: expected one of 1, 3, got 4"),
        ("data.adapter", "mnist", "data.adapter: expected one of cifar10, cifar100, digits, fashion_mnist"),
        ("train.recipe.loss", "bces", "train.recipe.loss: expected one of ce, bce, got 'bces'; did you mean bce?"),
        ("data.splits.val", 1.0, "data.splits.val: expected less than 1, got 1.0"),
        (
            "space.preset",
            "medium",
            "space.preset: expected one of tiny, tiny-paper, small, base, base-paper, vit-bench-101",
        ),
        ("space.depth", [], "space.depth: expected a list of at least 1, got []"),
        ("space.depth", [3, 4.5], "space.depth.1: expected a whole number, got 4.5"),
        ("space.head_dim", "own", "space.head_dim: expected a whole number or auto or null, got 'own'"),
        (
            "space",
            {"family": "pit", "stage_depth": [[1], [2]]},
            "space.stage_depth: expected a list of 3, got [[1], [2]]",
        ),
        (
            "space",
            {"family": "pit", "stage_depth": [[1], [], [2]]},
            "space.stage_depth.1: expected a list of at least 1",
        ),
        ("space.deph", [3], "space.deph: unknown key; did you mean space.depth?"),
        ("train.recipe.lr", 0, "train.recipe.lr: expected more than 0, got 0"),
        ("train.seeds", 2, "train.seeds: expected at least 3, got 2"),
        ("budget.params", [1, 2, 3], "budget.params: expected a list of 2, got [1, 2, 3]"),
        ("score.proxies", "zico", "score.proxies: expected a list, got 'zico'"),
        ("search.objectives", ["params"] * 2, "search.objectives: expected a list without repetitions"),
        ("train.recipe.lr", float("nan"), "train.recipe.lr: expected a number, got nan"),
        ("train.recipe.hflip", 1, "train.recipe.hflip: expected true or false, got 1"),
        ("seed", True, "seed: expected a whole number, got True"),
        ("device", "gpu", "device: expected auto, cpu, cuda or cuda:NUMBER, got 'gpu'"),
        ("run", "a/b", "run: expected a name of letters, digits, '.', '_' and '-', got 'a/b'"),
    ],
)
def test_what_is_wrong_by_itself(key, value, sentence):
    assert f"* {sentence}" in problem(changed(key, value))


@pytest.mark.parametrize("key", ["seed", "data.adapter", "train.recipe.epochs", "score.proxies"])
def test_what_is_missing(key):
    config = copy.deepcopy(DEFAULT)
    *sections, last = key.split(".")
    section = config
    for part in sections:
        section = section[part]
    del section[last]
    where = ".".join(sections) or "the top level"
    assert f"* {where}: '{last}' is missing" in problem(config)


def test_all_problems_are_named_at_once():
    what = problem(changed("sample.count", "many", changed("sede", 1)))
    assert "sede" in what and "sample.count" in what


FULL = {"recipe": "smoke", "data": "digits"}


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("benchmark.recipe", None, "benchmark.recipe: needed for benchmark.method train"),
        ("benchmark", {"method": "supernet", "supernet": None}, "benchmark.supernet: needed for benchmark.method"),
        ("benchmark.method", "table", "benchmark.table: needed for benchmark.method table"),
        ("benchmark.count", 500, "benchmark.count: 500 architectures of a sample of 100"),
        ("libra.calibration", 55, "libra.calibration: 55 of 30 architectures"),
        ("data.adapter", "folder", "data.path: needed for data.adapter folder"),
        ("data.adapter", "folder", "space.preset: digits is for images of 8 x 8, not for data.adapter folder"),
        ("layers.rule", "fixed", "layers.fixed: needed for layers.rule fixed"),
        ("search", None, "train: there is nothing to train without a search; set it to null too"),
        ("full_training", {**FULL, "options": ["--seeds", 3]}, "full_training.options: it is one training"),
        ("full_training", {**FULL, "options": ["--seeds=3"]}, "full_training.options: it is one training"),
        (
            "search",
            {"method": "evolution", "winner": "balanced"},
            "search.winner: balanced is a choice from the front of search.method guided or nsga2",
        ),
        ("search.parents", 51, "search.parents: more than search.population"),
        ("score.proxies", ["zico", "swap", "lswag_psi"], "score.proxies: lswag_lambda is missing"),
        ("budget.macs", [9, 1], "budget.macs: [9, 1] has its least above its most"),
    ],
)
def test_what_is_wrong_together(key, value, sentence):
    assert f"* {sentence}" in problem(changed(key, value))


def test_a_large_training_needs_the_small_ones():
    assert "* full_training: needs train" in problem(changed("train", None, changed("full_training", FULL)))


def test_numbers_that_came_as_text_are_numbers_where_the_schema_wants_them():
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config["search"]["evaluations"] = "1000"
    config["budget"] = {"params": ["60000", "1.2e5"], "macs": "null"}
    config["train"]["recipe"] |= {"lr": "1e-3", "hflip": "true"}
    config["data"]["channels"] = "1"
    config["space"]["head_dim"] = "16"
    config["score"]["options"] = {"psi_samples": "4"}
    config["run"] = "2026"
    done = checked(config)
    assert done["search"]["evaluations"] == 1000
    assert done["budget"] == {"params": [60000, 120000], "macs": None, "latency": None}
    assert done["train"]["recipe"]["lr"] == 1e-3 and done["train"]["recipe"]["hflip"] is True
    assert done["data"]["channels"] == 1
    assert done["space"]["head_dim"] == 16 and done["score"]["options"]["psi_samples"] == 4
    assert done["run"] == "2026"


def test_a_preset_for_a_gpu_without_the_one_below_it():
    alone = merged(DEFAULT, yaml.safe_load((ROOT / "config/cifar10-gpu.yaml").read_text()))
    found = problem(alone)
    assert "space.preset: image32 is for images of 32 x 32, not for data.adapter digits with" in found
    assert "needs that one named before it" in found
    checked(merged(alone, {"data": {"image_size": 32}}))  # digits may be enlarged


def test_a_latency_that_nothing_looks_up():
    config = changed("space.family", "darts", changed("budget.latency", [0, 1.5]))
    assert "budget.latency: latencies are looked up for space.family autoformer and pit only" in problem(config)
    search = {"method": "nsga2", "objectives": ["latency"]}
    config = changed("space.family", "darts", changed("search", search))
    assert "search.objectives: latencies are looked up for space.family autoformer and pit only" in problem(config)


def test_a_supernet_of_networks_without_shared_weights():
    config = changed("space.family", "darts", changed("benchmark.method", "supernet"))
    assert "benchmark.method: only networks of the space autoformer share their weights in a supernet" in problem(
        config
    )
