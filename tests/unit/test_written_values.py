"""Values as people write them: one rule for configurations, recipes and command lines; and advice that works."""

import copy
from pathlib import Path

import pytest
import yaml

from libranas import cli
from libranas.config.checks import checked
from libranas.core.errors import LibranasError
from libranas.core.text import key_value
from libranas.networks.load import Wanted, model_of, model_record
from libranas.spaces import AutoFormerSpace, PiTSpace
from libranas.training.recipe import make_recipe
from libranas.training.transforms import Look, training_transform

ROOT = Path(__file__).resolve().parents[2]
WHOLE = yaml.safe_load((ROOT / "config.yaml").read_text())
PROXIES = WHOLE["score"]["proxies"]


def configured(**changes) -> dict:
    """The default configuration with changes ``section__key=value``, checked."""
    config = copy.deepcopy(WHOLE)
    for path, value in changes.items():
        *sections, key = path.split("__")
        part = config
        for section in sections:
            part = part[section] if isinstance(part.get(section), dict) else part.setdefault(section, {})
        part[key] = value
    return checked(config)


@pytest.mark.parametrize(
    "written", [300, 300.0, "300", "3e2", "3e+2", "300.0", "300.", "0300.0", "30_0", "+300", "3E2", " 300 "]
)
def test_a_whole_number_may_be_written_as_a_float(written, capsys):
    config = configured(search__evaluations=written, benchmark__recipe__epochs=written, budget__params=[written, 1e6])
    given = config["search"]["evaluations"], config["benchmark"]["recipe"]["epochs"], config["budget"]["params"][0]
    for found in given:
        assert found == 300 and type(found) is int
    recipe = make_recipe(dict([key_value(f"epochs={written}", "--set")]), "--set ")
    assert recipe.epochs == 300 and type(recipe.epochs) is int
    assert (
        cli.main(["score", "--model", "timm:x", "--images", "nowhere", f"--batch={written}", f"--seed={written}"]) == 2
    )
    assert "nowhere does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    "written",
    [
        *(
            "1.5",
            1.5,
            "3e-1",
            "0300",
            "0x12c",
            "5:00",
            "1,000",
            "yes",
            True,
            [300],
            "[300]",
            "2026-01-01",
            "",
            None,
            "null",
        ),
        *(
            "nan",
            ".nan",
            float("nan"),
            "inf",
            "-.inf",
            float("inf"),
            "1e300",
            10**400,
            "9" * 5000,
            "1e400",
            "٣",
        ),
    ],
)
def test_what_is_no_whole_number_is_refused(written, capsys):
    with pytest.raises(LibranasError, match=r"search\.evaluations: expected (a whole number|at least 1), got"):
        configured(search__evaluations=written)
    if isinstance(written, str):
        with pytest.raises(LibranasError, match="--set epochs: expected a whole number"):
            make_recipe(dict([key_value(f"epochs={written}", "--set")]), "--set ")
        with pytest.raises(SystemExit):
            cli.main(["score", "--model", "timm:x", "--images", "nowhere", f"--seed={written}"])
        assert "argument --seed: expected a whole number, got" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--seed=-1"], ["--seeds=0"], ["--workers=-1"], ["--bad-images=1.5"], ["--checkpoint-minutes=0"]),
        *(["--checkpoint-minutes=nan"], ["--val-share=1"], ["--test-share=nan"], ["--device=gpu"], ["--micro-batch=0"]),
        *(["--channels=2"], ["--image-size=0"]),
    ],
)
def test_options_of_a_training_out_of_range(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", "--recipe", "smoke", *arguments])
    assert stopped.value.code == 2 and f"argument {arguments[0].split('=')[0]}: " in capsys.readouterr().err


def test_null_in_the_nested_text_of_a_command_line_is_null():
    config = configured(data__path="null", train__reference="null", search__long="0", data__limit="null")
    assert config["data"]["path"] is None and config["train"]["reference"] is None and config["data"]["limit"] is None


def test_a_number_that_is_too_large_is_called_so():
    with pytest.raises(LibranasError, match="seed: expected a whole number, got '1e300'; that is too large"):
        configured(seed="1e300")


@pytest.mark.parametrize("run", [2026, 1e3, True, None, [], "../x", "a/b", ""])
def test_the_name_of_a_run_is_text(run):
    with pytest.raises(LibranasError, match="run: expected a name of letters") as error:
        configured(run=run)
    assert ("needs quotes in a file" in str(error.value)) == isinstance(run, int | float)


@pytest.mark.parametrize(
    ("wrong", "said", "advised"),
    [
        ({"benchmark__count": 10**4}, "of a sample of", {"sample__count": 10**4}),
        ({"libra__calibration": 58}, "leave fewer than 10", {"libra__calibration": 20}),
        ({"benchmark__method": "table"}, "benchmark.table: needed", {"benchmark__table": "labels.csv"}),
        ({"data__adapter": "folder"}, "data.path: needed", {"data__path": "x", "space__preset": "image32"}),
        ({"data__adapter": "svhn", "data__path": "x"}, "name another preset", {"space__preset": "image32"}),
        ({"space__preset": "image32"}, "is for images of 32 x 32", {"data__image_size": 32}),
        ({"layers__rule": "fixed"}, "layers.fixed: needed", {"layers__fixed": [0, 2]}),
        (
            {"score__proxies": ["zico", "nwot", "synflow"]},
            "lswag_psi is missing",
            {"score__proxies": PROXIES},
        ),
        ({"search__parents": 400}, "more than search.population", {"search__population": 400}),
        (
            {"search__winner": "balanced", "search__method": "random"},
            "guided or nsga2",
            {"search__method": "nsga2"},
        ),
        ({"search__method": "pruning"}, "set it to null", {"space__family": "darts", "budget": {}}),
        ({"search": None}, "set it to null too", {"train": None}),
        ({"train__recipe": {}}, "'epochs' is missing", {"train__recipe__epochs": 3}),
    ],
)
def test_the_advice_for_keys_that_do_not_fit_together_works(wrong, said, advised):
    with pytest.raises(LibranasError) as error:
        configured(**wrong)
    assert said in error.value.what
    configured(**(wrong | advised))


@pytest.mark.parametrize("name", ["rand-m9-mstd0.5-inc1", "3a", "original", "augmix-m5-w4-d2", "null"])
def test_the_augmentations_that_an_error_names_exist(name):
    look = Look(8, 3, (0.5,) * 3, (0.2,) * 3)
    with pytest.raises(LibranasError, match=name):
        training_transform(make_recipe({"epochs": 1, "auto_augment": "no-such"}), look)
    training_transform(make_recipe({"epochs": 1, **dict([key_value(f"auto_augment={name}", "--set")])}), look)


# -- networks in files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a,b.yaml", "a=1,b=2/net.yaml", "net.yaml"])
def test_a_path_may_have_commas(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("RETRAIN: {DEPTH: 1, EMBED_DIM: 8, MLP_RATIO: [2.0], NUM_HEADS: [2]}")
    for keys in ("", ",head_dim=4", ",head_dim=4,max_relative_position=1"):
        model, *_ = model_of(f"{path}{keys}", Wanted(3, image_size=16))
        assert model.blocks[0].attn.head_dim == (4 if keys else 64)
        assert model_record(f"{path}{keys}")["name"] == path.name + keys


@pytest.mark.parametrize(
    "text", ["~nobody/net.yaml", "~nobody", "~nobody/net.py:build", "timm:" + "9" * 5000, "x" * 5000]
)
def test_texts_that_are_no_path(text):
    with pytest.raises(LibranasError):
        model_of(text, Wanted(3))


@pytest.mark.parametrize(
    ("genes", "said"),
    [
        ({"depth": 3}, "depth is 3, but num_heads has 2 entries"),
        ({"mlp_ratio": [2.0]}, "depth is 2, but mlp_ratio has 1 entries"),
        ({"num_heads": 2}, "depth is 2, but num_heads has no list of entries"),
        ({"num_heads": [1, 9]}, "num_heads 9 is none of 1, 2"),
        ({"embed_dim": 9}, "embed_dim 9 is none of 8"),
        ({"colour": 1}, "colour is no gene of this space"),
    ],
)
def test_why_an_autoformer_is_no_member_is_said(genes, said):
    space = AutoFormerSpace((8,), (2, 3), (1, 2), (2.0,))
    network = {"embed_dim": 8, "depth": 2, "num_heads": [1, 2], "mlp_ratio": [2.0, 2.0]}
    assert space.parse(str(network)).genes["depth"] == 2
    with pytest.raises(LibranasError, match=f"is not a member of the space: {said}"):
        space.parse(str(network | genes))


def test_why_a_pit_is_no_member_is_said():
    space = PiTSpace((4,), (2.0,), ((1,), (2,), (1,)), (1, 2))
    network = {"base_dim": 4, "mlp_ratio": 2.0, "depth": [1, 2, 1], "num_heads": [1, 2, 2]}
    space.parse(str(network))
    for genes, said in (({"depth": [1, 2]}, "not a number for each of 3 stages"), ({"base_dim": 5}, "5 is none of 4")):
        with pytest.raises(LibranasError, match=said):
            space.parse(str(network | genes))
