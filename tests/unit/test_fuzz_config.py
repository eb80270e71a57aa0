"""Random wrong input: configurations, recipes, command lines, files of networks. None ends in a traceback.

``LIBRANAS_FUZZ=3000 python -m pytest tests/unit/test_fuzz_config.py`` tries so many of each kind, always other ones.
"""

import copy
import json
import os
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn

from libranas import cli
from libranas.config.checks import checked
from libranas.config.schema import Config
from libranas.core.errors import LibranasError
from libranas.core.text import key_value, literal
from libranas.core.typed import keys_of
from libranas.networks.load import NETWORK_FILE, Wanted, model_of
from libranas.runs.files import run_path
from libranas.search.strategies.guided import sizes
from libranas.spaces import FAMILIES, make_space
from libranas.spaces.file_formats import network_space, networks_table, read_file
from libranas.training.optimization import make_mixup, make_optimizer, make_scheduler
from libranas.training.recipe import FOLDER, TrainingRecipe, make_recipe, read_recipe, shipped
from libranas.training.transforms import Look, evaluation_transform, training_transform

ROOT = Path(__file__).resolve().parents[2]
COUNT = int(os.environ.get("LIBRANAS_FUZZ", 0))
fuzz = settings(
    max_examples=COUNT or max(40, settings.default.max_examples),
    derandomize=not COUNT,
    database=None,
    suppress_health_check=list(HealthCheck),
)

TEXTS = (
    *("6e1", "60.0", "1.5", "1e2", "yes", "no", "on", "true", "1_000", "08", "010", "0x10", ".5", "5.", "-.5", "+3"),
    *("null", "~", "", " ", "2020-01-01", "nan", ".nan", "inf", "-.inf", "1e400", "1e300", "9" * 5000, "1:30", "٣"),
    *("[1, 2]", "(1, 2)", "[6e1, 1e2]", "[null]", "{}", "{a: 1}", "[[[[", "*x", "&a 1", "- 1", "a: b", "!!python/none"),
    *("auto", "Auto", "../x", "/", "a/../../b", "a,b", "x=1", "\x00", "\n", "é", "'60'", "cuda:99", "digits", "small"),
)
VALUES = (
    *(0, 1, 2, 3, -1, 16, 10**6, 10**18, 2**63, 10**400, 0.5, 1.5, 2.0, 60.0, -0.0, 1e300),
    *(float("nan"), float("inf"), None, True, False, [], {}, [1], [2.0, "3e0"], [[1]], [None], ["a", "a"], {"a": 1}),
)
odd = st.one_of(
    st.sampled_from(TEXTS),
    st.sampled_from(VALUES),
    st.integers(-3, 300),
    st.floats(),
    st.text(max_size=6),
    st.recursive(
        st.none() | st.booleans() | st.integers(0, 9) | st.sampled_from(TEXTS),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=2)
        ),
        max_leaves=5,
    ),
).map(copy.deepcopy)


@contextmanager
def answered(seconds: int = 30):
    """Let a LibranasError pass; anything else, or no answer in this time, is a failure."""

    def late(*_):
        raise AssertionError(f"no answer in {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    except LibranasError as error:
        assert error.what.strip() and "Traceback" not in str(error)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def places(value, path=()) -> list[tuple]:
    """The paths to all parts of nested mappings and lists."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, part in inner for place in places(part, (*path, key))]


@st.composite
def mutated(draw, originals: list):
    """One of the originals with one to three changes: another value, a missing, unknown or misspelt key, nesting."""
    value = copy.deepcopy(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from(places(value) or [(0,)]))
        part = value
        for key in path:
            part = part[key]
        if not isinstance(part, (dict, list)) or not part:
            continue
        change = draw(st.sampled_from(["value"] * 5 + ["remove", "spell", "list", "section", "add"]))
        if change == "value":
            part[last] = draw(odd)
        elif change == "list":
            part[last] = [part[last]]
        elif change == "section":
            part[last] = {str(last): part[last]}
        elif change == "remove":
            del part[last]
        elif isinstance(part, list):
            part.append(draw(odd))
        elif change == "spell":
            part[draw(st.sampled_from([str(last).upper(), f"{last}s", f" {last}", 1, None]))] = part.pop(last)
        else:
            part[draw(st.sampled_from(["x", 1, "", *keys_of(Config)]))] = draw(odd)
    return value


def configurations() -> list[dict]:
    """The shipped ones, over the default as Snakemake does it, with every key of the schema."""
    whole = yaml.safe_load((ROOT / "config.yaml").read_text())
    presets = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "config").glob("*.yaml"))]
    return [checked(whole), *({**copy.deepcopy(whole), **p} for p in presets if p.get("run")), whole]


CONFIGURATIONS = configurations()


@fuzz
@given(mutated(CONFIGURATIONS))
def test_configurations(config):
    with answered():
        config = checked(config)
        assert checked(copy.deepcopy(config)) == config
        json.dumps(config)
        Path(run_path(config)).relative_to(config["results"])
        data = config["data"]
        make_space(config["space"], data["image_size"], data["channels"], 2)
        assert config["sample"]["shards"] <= 10**5
        if config["search"]:
            sizes(config["search"]["labels"], config["search"]["round"])
        if config["train"]:
            assert config["train"]["seeds"] <= 10**5
            usable(make_recipe(config["train"]["recipe"]))


def usable(recipe: TrainingRecipe) -> None:
    """What a training makes of a recipe before its first epoch."""
    look = Look(8, 3, (0.5,) * 3, (0.2,) * 3)
    training_transform(recipe, look), evaluation_transform(recipe, look), make_mixup(recipe, 3)
    optimizer = make_optimizer(nn.Linear(2, 2), recipe)
    make_scheduler(optimizer, recipe, 10 * recipe.epochs, 10 * recipe.warmup_epochs).step_update(3)


RECIPES = [yaml.safe_load((FOLDER / f"{name}.yaml").read_text()) for name in shipped()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of work; everything is written in it, and only what a command names."""
    folder = tmp_path_factory.mktemp("fuzz")
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)
    assert {path.name for path in folder.iterdir()} <= {"recipe.yaml", "net.yaml", "net.json", "table.csv", "out"}
    assert [path.name for path in folder.parent.iterdir() if path.stat().st_mtime > folder.stat().st_mtime + 1] == []


@fuzz
@given(mutated(RECIPES))
def test_recipes(folder, content):
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    with answered():
        recipe, _ = read_recipe("recipe.yaml")
        assert make_recipe(recipe.to_dict()) == recipe
        usable(recipe)


@fuzz
@given(st.sampled_from(sorted(keys_of(TrainingRecipe))), st.sampled_from(TEXTS) | st.text(max_size=8))
def test_settings_of_a_command_line(name, text):
    with answered():
        key, value = key_value(f"{name}={text}", "--set")
        assert key == name and literal(text) is not literal
        usable(make_recipe({"epochs": 1, key: value}, "--set "))


OPTIONS = {
    "score": [
        "--model",
        "--images",
        "--batch",
        "--image-size",
        "--channels",
        "--proxies",
        "--seed",
        "--option",
        "--device",
    ],
    "train": [
        *("--recipe", "--set", "--model", "--data", "--val-share", "--test-share", "--image-size", "--channels"),
        *(
            "--seed",
            "--seeds",
            "--device",
            "--workers",
            "--micro-batch",
            "--bad-images",
            "--checkpoint-minutes",
            "--accept",
        ),
    ],
    "export": ["--to"],
    "libra": ["--scores", "--accuracy", "--params", "--labels", "--splits", "--seed", "--methods"],
    "simulate": ["--scores", "--accuracy", "--features", "--methods", "--labels", "--runs", "--seed"],
    "networks": ["--space", "--image-size", "--channels", "--classes", "--to"],
}
#: What a command needs; none of it is there, so no work begins.
NEEDED = {
    "score": ["--model", "timm:vit_tiny_patch16_224", "--images", "no-images"],
    "train": [
        "--recipe",
        "smoke",
        "--model",
        "timm:vit_tiny_patch16_224",
        "--data",
        "folder:none",
        "--output",
        "out/x",
    ],
}


@fuzz
@given(
    st.sampled_from(sorted(OPTIONS)).flatmap(
        lambda command: st.tuples(
            st.just(command),
            st.lists(
                st.tuples(st.sampled_from(OPTIONS[command]), st.sampled_from(TEXTS) | st.text(max_size=6)), max_size=3
            ),
        )
    )
)
def test_command_lines(folder, capsys, command):
    name, pairs = command
    assume(("--data", "digits") not in pairs)  # that would be a training
    words = [name, *NEEDED.get(name, ["none"]), *(f"{option}={text}" for option, text in pairs)]
    with answered():
        try:
            code = cli.main(words)
        except SystemExit as stopped:  # of argparse
            code = stopped.code
        _, err = capsys.readouterr()
        assert code == 2 and err.strip() and "Traceback" not in err, words


GENES = {"DEPTH": 2, "EMBED_DIM": 8, "MLP_RATIO": [2.0, 2.0], "NUM_HEADS": [1, 2]}
CHOICES = {"EMBED_DIM": [8, 12], "DEPTH": [1, 2], "MLP_RATIO": [2.0, 3.0], "NUM_HEADS": [1, 2]}
PIT = {"BASE_DIM": [4] * 3, "MLP_RATIO": [2], "DEPTH": [1, 2, 1], "NUM_HEADS": [1, 2, 2]}
FILES = [
    {"SUPERNET": {**GENES, "MLP_RATIO": 2.0, "NUM_HEADS": 2}, "SEARCH_SPACE": CHOICES, "RETRAIN": GENES},
    {"RETRAIN": GENES, "LIBRANAS": {"patch_size": 4, "image_size": 16, "classes": 3, "head_dim": "auto"}},
    {"RETRAIN": PIT, "SEARCH_SPACE": {**CHOICES, "BASE_DIM": [4, 8], "DEPTH": ["1,2", "2", "1"]}},
    {"1.0": [{"layer_num": 2, "mlp_ratio": [2.0, 2.0], "num_heads": [1, 2], "embed_dim": [8, 8], "num_params": 0.5}]},
    [{"arch": {"mlp_ratio": [2, 2], "num_heads": [1, 2], "hidden_dim": 8, "depth": 2}, "cifar": 60.5}],
    [{"family": "autoformer", "embed_dim": 8, "depth": 2, "num_heads": [1, 2], "mlp_ratio": [2.0, 2.0]}],
]


@fuzz
@given(mutated(FILES), st.booleans())
def test_files_of_networks(folder, content, as_json):
    path = folder / ("net.json" if as_json else "net.yaml")
    path.write_text(json.dumps(content, default=str, skipkeys=True) if as_json else yaml.safe_dump(content))
    with answered():
        content = read_file(path)
        space = network_space(content, {}, 16, 3, 4)
        table = networks_table(content, space)
        for text in table["architecture"]:
            assert space.parse(text).json == text


STRINGS = [
    "nasbench201,width=4,cells=1:|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|avg_pool_3x3~2|",
    "nasbench201,width=4,cells=1:(4, 0, 3, 1, 4, 3)",
    "transnas101,width=4:64-41414-1_02_333",
    'autoformer,embed_dim=[8],depth=[1],num_heads=[2],mlp_ratio=[2],patch_size=8:{"embed_dim":8,"depth":1,"num_heads":[2],"mlp_ratio":[2]}',
    "timm:test_vit,img_size=16,num_heads=2",
    "net.yaml,patch_size=4",
]


@settings(fuzz, max_examples=COUNT or 15)  # networks are built
@given(st.sampled_from(STRINGS), st.integers(0, 90), st.sampled_from(TEXTS) | st.text(max_size=3), st.integers(0, 9))
def test_names_of_networks(folder, text, start, put, length):
    text = text[:start] + put + text[start + length :]
    with answered():
        if NETWORK_FILE.fullmatch(text) or text.partition(",")[0].partition(":")[0] in {*FAMILIES, "timm"}:
            model_of(text, Wanted(3, image_size=16))
