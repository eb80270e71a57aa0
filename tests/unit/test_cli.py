"""The command line: what it prints and writes, and that every mistake is one message and exit code 2."""

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import yaml
from PIL import Image

import libranas
from libranas import cli
from libranas.core.provenance import file_sha256
from libranas.core.scorecard import ScoreCard
from libranas.core.text import key_value, literal
from libranas.networks.load import Wanted, model_of
from libranas.spaces import make_space
from libranas.spaces.file_formats import yaml_text
from libranas.zero_cost import registry as proxies
from libranas.zero_cost.proxy import EVALUATION

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ("cat", "cow", "dog")
#: Cheap proxies of three passes.
FEW = ["--proxies", "params,grad_norm,nwot,synflow"]
TINY_VIT = "timm:test_vit,img_size=16,patch_size=8,embed_dim=16,depth=2,num_heads=2"
NETWORKS = """
import functools
from pathlib import Path

from torch import nn

from neighbour import WIDTH


def tiny(classes):
    return nn.Sequential(nn.Conv2d(3, WIDTH, 4, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
                         nn.Linear(4 * WIDTH, classes))


def fixed():
    return tiny(7)


def by_name(width=3, num_classes=2):
    assert width == 3
    return tiny(num_classes)


def by_keywords(*, pretrained=False, **rest):
    return tiny(**{"classes": rest.pop("num_classes"), **rest})


class Tokens(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layer = nn.Linear(16, classes)

    def forward(self, images):
        return self.layer(images).mean(2)


class Pair(Tokens):
    def forward(self, images):
        return super().forward(images).mean(1), None


def grey(classes):
    return nn.Sequential(nn.Conv2d(1, 4, 4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(64, classes))


def few():
    return tiny(2)


def no_module():
    return "a network"


def no_weights():
    return nn.Flatten()


def fails(classes):
    raise KeyError("width of the network")


number = 5
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Three classes of 10, 6 and 6 images, of different sizes."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, count in zip(CLASSES, (10, 6, 6), strict=True):
        (root / name).mkdir()
        for i in range(count):
            pixels = rng.integers(0, 256, (16 + i, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("code") / "networks.py"
    path.write_text(NETWORKS)
    path.with_name("neighbour.py").write_text("WIDTH = 4\n")
    return path


@pytest.fixture
def run(images, capsys):
    """Run ``libranas score`` on the images; returns what it printed."""

    def call(model, *more, images=images, batch=12, size=16) -> str:
        sizes = ["--image-size", str(size)] if size else []
        code = cli.main(
            ["score", "--model", str(model), "--images", str(images), "--batch", str(batch), *sizes, *map(str, more)]
        )
        out, err = capsys.readouterr()
        assert (code, err) == (0, ""), err
        return out

    return call


@pytest.fixture
def refused(images, networks, capsys):
    """The command must end with exit code 2 and one message that says all of `said`, and print nothing else."""

    def call(*said, model=f"{networks}:tiny", images=images, batch=12, more=(*FEW, "--image-size", "16")) -> str:
        code = cli.main(["score", "--model", model, "--images", str(images), "--batch", str(batch), *more])
        out, err = capsys.readouterr()
        assert (code, out) == (2, "")
        assert err.startswith("libranas: ") and "Traceback" not in err
        for words in said:
            assert words in err
        return err

    return call


def score(run, model, tmp_path, *more, **settings) -> tuple[ScoreCard, dict]:
    path = tmp_path / "out" / "score.json"
    run(model, *FEW, "--device", "cpu", "--output", path, *more, **settings)
    record = json.loads(path.read_text())
    assert os.listdir(path.parent) == ["score.json"]
    return ScoreCard.from_record(record), record["conditions"]


def values(card: ScoreCard) -> dict[str, float]:
    return {name: card[name] for name in card.scores}


# What it prints and writes


def test_a_network_of_a_file_is_scored_as_from_python(run, networks, images, tmp_path):
    card, conditions = score(run, f"{networks}:tiny", tmp_path, "--seed", 3, "--init-seed", 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(networks.parent)
        from networks import tiny
    torch.manual_seed(5)
    model = tiny(3)
    chosen, targets = batch_by_hand(images, seed=3)
    expected = libranas.score(model, chosen, targets, FEW[1].split(","), seed=3)
    assert values(card) == values(expected)
    assert conditions["model"] == {"name": "networks.py:tiny", "sha256": file_sha256(networks)}
    assert conditions["images"]["classes"] == list(CLASSES) and conditions["images"]["shape"] == [12, 3, 16, 16]
    assert (conditions["seed"], conditions["init_seed"], conditions["device"]) == (3, 5, "cpu")
    assert conditions["options"] == json.loads(json.dumps(vars(proxies.Options())))
    assert conditions["proxy_versions"] == {name: proxies.get(name).version for name in card.scores}
    assert conditions["facts"]["packages"]["timm"] == timm.__version__
    assert str(images.parent) not in json.dumps(conditions)


def batch_by_hand(images: Path, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The class-balanced batch of 12 images, normalised, from the two documented functions."""
    from libranas.data.calibration import calibration_indices
    from libranas.data.decode import decode

    files = [(path, label) for label, name in enumerate(CLASSES) for path in sorted((images / name).iterdir())]
    indices = calibration_indices(np.array([label for _, label in files]), 12, seed)
    pixels = np.stack([decode(files[i][0].read_bytes(), 16, 3) for i in indices]) / 255
    normal = (pixels - pixels.mean((0, 1, 2))) / pixels.std((0, 1, 2))
    targets = torch.tensor([files[i][1] for i in indices])
    assert targets.bincount().tolist() == [4, 4, 4]
    return torch.from_numpy(normal.astype(np.float32).transpose(0, 3, 1, 2).copy()), targets


def test_the_table_shows_every_proxy_with_its_pass(run, networks):
    out = run(f"{networks}:tiny")
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line}
    for name in proxies.list_proxies():
        proxy = proxies.get(name)
        shown = "data" if proxy.run == EVALUATION else proxy.run.name  # without batch norm they are the same run
        assert rows[name][2:4] == ["higher" if proxy.orientation > 0 else "lower", shown]
        assert float(rows[name][4]) >= 0
    assert rows["params"][1] == str(4 * 3 * 16 + 4 + 16 * 3 + 3)
    assert "az_expressivity: " in out.split("Undefined for this network:")[1]
    assert rows["az_expressivity"][1] == "nan"
    assert f"2 parameter tensors ({4 + 3} parameters) belong to no layer" in out
    assert "12 images of 3 classes, 16 x 16 x 3" in out
    for name in {proxies.get(p).run.name for p in ("params", "grad_norm", "synflow")}:
        assert len(rows[name]) == 3
    assert "Warning" not in out


def test_a_timm_network_takes_its_arguments_and_the_classes_found(run, tmp_path):
    card, conditions = score(run, TINY_VIT, tmp_path, size=None)
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=3, img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2)
    assert card["params"] == sum(p.numel() for p in model.parameters())
    assert conditions["images"]["shape"] == [12, 3, 16, 16]
    assert conditions["model"] == {"name": TINY_VIT}


@pytest.mark.parametrize(
    ("model", "more", "shape"),
    [
        ("timm:test_vit,in_chans=1", ["--image-size", "32"], [12, 1, 32, 32]),
        ("timm:test_resnet", ["--image-size", "32", "--channels", "1"], [16, 1, 32, 32]),
        ("timm:test_vit,num_classes=5,img_size=[32,32]", [], [12, 3, 32, 32]),
        ("timm:test_resnet.r160_in1k", [], [16, 3, 160, 160]),
    ],
)
def test_size_and_channels_of_the_images_follow_the_timm_network(run, tmp_path, model, more, shape):
    _, conditions = score(run, model, tmp_path, *more, "--proxies", "params", size=None, batch=shape[0])
    assert conditions["images"]["shape"] == shape


def test_an_exported_network_is_found_by_its_folder(run, tmp_path):
    from libranas.export.timm import export_timm
    from libranas.networks import build
    from libranas.spaces import AutoFormerSpace

    space = AutoFormerSpace(
        (12,), (1,), (1,), (2.0,), head_dim=4, image_size=8, patch_size=4, channels=1, classes=3,
        max_relative_position=1,
    )  # fmt: skip
    export_timm(
        build(space, space.arch(12, (1,), (2.0,)), 0, timm=True),
        tmp_path / "net",
        space.image_size,
        list(CLASSES),
        [0.5],
        [0.2],
        "",
        fresh=False,
    )
    _, conditions = score(run, f"timm:local-dir:{tmp_path / 'net'}", tmp_path, size=None)
    assert conditions["images"]["shape"] == [12, 1, 8, 8]


@pytest.mark.parametrize("function", ["by_name", "by_keywords", "fixed", "tiny"])
def test_a_function_is_given_the_number_of_classes_if_it_takes_an_argument(run, networks, tmp_path, function):
    card, _ = score(run, f"{networks}:{function}", tmp_path)
    outputs = 7 if function == "fixed" else 3
    assert card["params"] == 4 * 3 * 16 + 4 + 17 * outputs
    assert [("7 outputs for 3 classes" in w) for w in card.warnings] == [True] * (function == "fixed")


def test_grey_images(run, networks, tmp_path):
    _, conditions = score(run, f"{networks}:grey", tmp_path, "--channels", 1)
    assert conditions["images"]["shape"] == [12, 1, 16, 16]


def test_a_tar_gives_the_same_batch_as_its_folder(run, images, networks, tmp_path):
    with tarfile.open(tmp_path / "images.tar", "w") as tar:
        tar.add(images, "set/train")
    card, conditions = score(run, f"{networks}:tiny", tmp_path)
    card_of_tar, conditions_of_tar = score(run, f"{networks}:tiny", tmp_path, images=tmp_path / "images.tar")
    assert values(card) == values(card_of_tar)
    assert conditions_of_tar["images"]["sha256"] == conditions["images"]["sha256"]
    assert conditions_of_tar["images"]["source"] == "images.tar"


def test_seeds_change_images_and_weights_and_nothing_else(run, networks, tmp_path):
    base, conditions = score(run, f"{networks}:tiny", tmp_path)
    again, _ = score(run, f"{networks}:tiny", tmp_path)
    other_init, same_images = score(run, f"{networks}:tiny", tmp_path, "--init-seed", 1)
    other_seed, other_images = score(run, f"{networks}:tiny", tmp_path, "--seed", 1)
    assert values(base) == values(again)
    assert base["synflow"] == other_seed["synflow"] != other_init["synflow"]
    assert base["grad_norm"] != other_seed["grad_norm"]
    assert conditions["images"]["sha256"] == same_images["images"]["sha256"] != other_images["images"]["sha256"]


def test_options_are_read_as_yaml_and_recorded(run, networks, tmp_path):
    more = ["--option", "precision=float64", "--option", "noise_batch=4", "--option", "features=0,1", "--option"]
    _, conditions = score(run, f"{networks}:tiny", tmp_path, *more, "psi_samples=null")
    found = {key: conditions["options"][key] for key in ("precision", "noise_batch", "features", "psi_samples")}
    assert found == {"precision": "float64", "noise_batch": 4, "features": ["0", "1"], "psi_samples": None}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("8", 8),
        ("true", True),
        ("[0.2, 1e0]", [0.2, 1.0]),
        ("null", None),
        ("a: [", "a: ["),
        ("x", "x"),
        ("(0.2, 1)", [0.2, 1]),
        ("('first',)", ["first"]),
    ],
)
def test_literals(text, value):
    assert literal(text) == value and type(literal(text)) is type(value)


def test_a_mistake_leaves_the_file_that_was_there(refused, networks, tmp_path):
    path = tmp_path / "score.json"
    path.write_text("before")
    refused("nothing_such", more=("--proxies", "nothing_such", "--output", str(path)))
    assert path.read_text() == "before"
    code = cli.main(["score", "--model", f"{networks}:tiny", "--images", "nowhere", "--output", str(path)])
    assert code == 2 and path.read_text() == "before"


def test_the_list_of_proxies(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    assert cli.main(["proxies"]) == 0
    out = capsys.readouterr().out
    head, *lines = out.splitlines()
    assert head.split() == ["proxy", "pass", "orientation", "title", "source"]
    assert [line.split()[0] for line in lines] == proxies.list_proxies()
    for line, name in zip(lines, proxies.list_proxies(), strict=True):
        proxy = proxies.get(name)
        assert proxy.title in line and proxy.source in line and proxy.run.name in line
    monkeypatch.setenv("COLUMNS", "120")
    assert cli.main(["proxies"]) == 0
    narrow = capsys.readouterr().out
    assert max(map(len, narrow.splitlines())) <= 120
    assert sorted(narrow.split()) == sorted(out.split())
    assert cli.main(["proxies", "--json"]) == 0
    listing = json.loads(capsys.readouterr().out)
    assert [(p["name"], p["pass"], p["orientation"]) for p in listing] == [
        (p.name, p.run.name, p.orientation) for p in map(proxies.get, proxies.list_proxies())
    ]


# Files of other projects


ENTRY = {"embed_dim": 192, "depth": 2, "num_heads": [3, 4], "mlp_ratio": [3.5, 4.0]}
TWO = [{"arch": ENTRY, "accuracy": 71.5}, {"arch": {**ENTRY, "embed_dim": 240}, "accuracy": 72.5}]


@pytest.fixture
def converted(tmp_path, capsys):
    """Run ``libranas networks`` on a file with this content; returns exit code, output and error."""

    def call(content, *more) -> tuple[int, str, str]:
        (tmp_path / "nets.yaml").write_text(yaml.safe_dump(content))
        code = cli.main(["networks", str(tmp_path / "nets.yaml"), *more])
        return code, *capsys.readouterr()

    return call


def test_networks_of_a_file_are_counted_and_converted(converted, tmp_path):
    code, out, err = converted(TWO, "--classes", "100")
    lines = out.splitlines()
    assert (code, err) == (0, "") and len(lines) == 3 and "224 px, 100 classes" in lines[0]
    space = make_space({"family": "autoformer", **{k: np.unique(v).tolist() for k, v in ENTRY.items()}}, 224, 3, 100)
    arch = space.parse(json.dumps(ENTRY))
    assert lines[1].split()[:3] == [arch.id, f"{space.params(arch) / 1e6:.3f}", f"{space.macs(arch) / 1e9:.3f}"]
    path = tmp_path / "table.csv"
    assert converted(TWO, "--to", "csv", "--output", str(path)) == (0, "", "")
    table = pd.read_csv(path)
    assert table["accuracy"].tolist() == [71.5, 72.5] and table["architecture"][0] == arch.json
    code, out, _ = converted(TWO[:1], "--to", "yaml", "--space", "depth=[2, 3]")
    assert code == 0 and yaml.safe_load(out)["SEARCH_SPACE"]["DEPTH"] == [2, 3]
    assert yaml.safe_load(out)["RETRAIN"]["NUM_HEADS"] == [3, 4]
    code, again, _ = converted(yaml.safe_load(out), "--to", "prenas")
    assert code == 0 and next(iter(json.loads(again).values()))[0]["embed_dim"] == [192, 192]
    code, section, _ = converted(yaml.safe_load(out), "--to", "config")
    assert code == 0 and make_space(yaml.safe_load(section)["space"], 224, 3, 1000).depth == (2, 3)


def test_a_network_of_this_project_is_read_with_its_task(converted, tmp_path):
    space = make_space({"family": "autoformer", "preset": "digits-autoformer"}, 8, 1, 10)
    arch = space.sample(np.random.default_rng(0))
    content = yaml.safe_load(yaml_text(space, arch))
    code, out, _ = converted(content)
    assert code == 0 and "8 px, 10 classes" in out
    assert out.splitlines()[1].split()[:2] == [arch.id, f"{space.params(arch) / 1e6:.3f}"]
    code, out, _ = converted(content, "--to", "yaml", "--classes", "7")
    assert code == 0 and yaml.safe_load(out) == content | {"LIBRANAS": content["LIBRANAS"] | {"classes": 7}}
    code, out, _ = converted(content, "--to", "config")
    assert code == 0 and make_space(yaml.safe_load(out)["space"], 8, 1, 10) == space
    model, size, channels = model_of(str(tmp_path / "nets.yaml"), Wanted(classes=10))
    assert (size, channels) == (8, 1) and sum(p.numel() for p in model.parameters()) == space.params(arch)
    model, size, channels = model_of(str(tmp_path / "nets.yaml"), Wanted(10, image_size=16, channels=3))
    assert (size, channels) == (16, 3) and model.pos_embed.shape[1] == 8 * 8 + 1


@pytest.mark.parametrize(
    ("content", "more", "said"),
    [
        ({"a": 1}, [], "nets.yaml: there is no network"),
        ({1: 2, "RETRAIN": ENTRY}, [], "nets.yaml: the key 1 beside a network is no text"),
        (
            {"RETRAIN": ENTRY | {"num_heads": [-3, 4]}},
            [],
            "nets.yaml: no space: space.num_heads.0: expected more than 0, got -3",
        ),
        (
            {"RETRAIN": ENTRY, "LIBRANAS": {"patch_size": 0}},
            [],
            "the section LIBRANAS cannot be used (patch_size: expected more",
        ),
        ({"RETRAIN": ENTRY, "SEARCH_SPACE": 5}, ["--to", "config"], "SEARCH_SPACE is not the space"),
        (TWO, ["--to", "yaml"], "there are 2 networks, and AutoFormer's files hold one"),
        (TWO, ["--to", "config"], "there is no section SEARCH_SPACE"),
        (TWO, ["--space", "preset=small"], "is not a member of the space"),
        (TWO, ["--space", "width=3"], "no space: space.width: unknown key"),
        (TWO, ["--space", "width"], "is not of the form key=value"),
        (TWO, ["--space", "family=resnet"], "Known families"),
        (
            [{"base_dim": 16, "mlp_ratio": 2, "depth": [1, 4, 2], "num_heads": [2, 2, 2]}],
            ["--to", "prenas"],
            "family pit",
        ),
    ],
)
def test_what_cannot_be_converted(converted, content, more, said):
    code, out, err = converted(content, *more)
    assert (code, out) == (2, "") and err.startswith("libranas: ") and said in err and "Traceback" not in err


def test_a_network_of_a_file_of_another_project_is_scored(run, tmp_path):
    entry = {"embed_dim": 12, "depth": 2, "num_heads": [1, 2], "mlp_ratio": [2.0, 1.5]}
    path = tmp_path / "net.yaml"
    path.write_text(yaml.safe_dump({"RETRAIN": {key.upper(): value for key, value in entry.items()}}))
    model = f"{path},head_dim=4,patch_size=8,init_std=0.1"
    card, conditions = score(run, model, tmp_path, *FEW, "--init-seed", "3")
    name = "net.yaml,head_dim=4,patch_size=8,init_std=0.1"
    assert conditions["model"] == {"name": name, "sha256": file_sha256(path)}
    settings = {"family": "autoformer", "head_dim": 4, "patch_size": 8, "init_std": 0.1}
    settings |= {key: [value] if isinstance(value, int) else sorted(value) for key, value in entry.items()}
    space = make_space(settings, 16, 3, len(CLASSES))
    assert card["params"] == space.params(space.parse(json.dumps(entry)))
    other, _ = score(run, model, tmp_path, *FEW, "--init-seed", "4")
    assert other["params"] == card["params"] and other["synflow"] != card["synflow"]


def test_files_of_other_projects_that_are_no_model(refused, tmp_path):
    path = tmp_path / "two.json"
    refused("two.json cannot be read", model=str(path))
    path.write_text(json.dumps(TWO))
    refused("two.json: there are 2 networks", "one network", model=str(path))
    refused("two.json: ", "not a member", model=f"{path},preset=small")


GENOTYPE = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5], "
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=[2, 3, 4, 5])"
)


@pytest.mark.parametrize(
    "model",
    [
        "nasbench201,width=4,cells=1:|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|avg_pool_3x3~2|",
        "nasbench201,width=4,cells=1:(4, 0, 3, 1, 4, 3)",
        f"darts,width=4,layers=3:{GENOTYPE}",
        "transnas101,width=8:64-41414-1_02_333",
        ('autoformer,head_dim=4,max_relative_position=1,embed_dim=[8],depth=[1],num_heads=[1],mlp_ratio=[2.0],patch_size=8:'
         '{"depth":1,"embed_dim":8,"family":"autoformer","mlp_ratio":[2.0],"num_heads":[1]}'),
    ],
)  # fmt: skip
def test_members_of_spaces_by_their_strings(run, tmp_path, model):
    card, conditions = score(run, model, tmp_path, "--proxies", "params", batch=16)
    family, _, text = model.partition(":")
    name, *pairs = family.split(",", 1)
    settings = dict(key_value(pair, "") for pair in re.split(r",(?=\w+=)", pairs[0]))
    space = make_space({"family": name, **settings}, 16, 3, 3)
    assert card["params"] == space.params(space.parse(text)) and conditions["model"] == {"name": model}


def test_strings_that_are_no_member(refused):
    refused("is not a member of NAS-Bench-201", model="nasbench201:|nor_conv_5x5~0|")
    refused("DARTS space", model="darts:Genotype(normal=[])")
    refused(
        "space.wide: unknown key; did you mean space.width?", "`space`", model="nasbench201,wide=4:(4, 0, 3, 1, 4, 3)"
    )


def test_the_installed_command_and_the_module_are_the_same_function(images, networks):
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"libranas": "libranas.cli:main"} and callable(cli.main)
    command = [sys.executable, "-m", "libranas", "score", "--model", f"{networks}:nothing", "--images", str(images)]
    command += ["--batch", "12"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == "" and "has no function 'nothing'" in done.stderr
    assert "Traceback" not in done.stderr


# Mistakes: the network


def test_a_wrong_timm_name_gets_close_matches(refused):
    refused("no model 'vit_tinny'", "Close matches: vit_tiny_patch16_224", model="timm:vit_tinny")
    refused("no model 'convnxt'", "Close matches: convnext_", model="timm:convnxt,in_chans=1")
    refused("timm.list_models()", model="timm:")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("timm:test_vit,nothing=1", "unexpected keyword argument 'nothing'"),
        ("timm:test_vit.nothing", "Invalid pretrained tag"),
        ("timm:local-dir:/nowhere", "timm cannot make local-dir:/nowhere with 3 classes"),
        ("timm:test_vit,img_size=32,dynamic_img_size=false", "does not take images of shape (2, 3, 16, 16)"),
        ("resnet18", "neither timm:NAME nor PATH.py:FUNC"),
        ("nowhere/networks.py:tiny", "nowhere/networks.py does not exist"),
        ("networks.py", "neither timm:NAME nor PATH.py:FUNC"),
    ],
)
def test_a_wrong_model(refused, model, said):
    refused(said, model=model)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("tyni", ["has no function 'tyni'", "Close matches: tiny"]),
        ("number", ["has no function 'number'"]),
        ("", ["has no function ''", "It has: "]),
        ("fails", ["networks.py, line", "fails failed: KeyError: 'width of the network'"]),
        ("no_module", ["gave a str"]),
        ("no_weights", ["has no parameters"]),
        ("Tokens", ["returns (2, 3, 3) for images of shape (2, 3, 16, 16)", "logits of shape (B, K)"]),
        ("Pair", ["returns tuple"]),
        ("grey", ["does not take images of shape (2, 3, 16, 16)", "--channels"]),
        ("few", ["has 2 outputs, but the images have 3 classes"]),
    ],
)
def test_a_wrong_function(refused, networks, function, said):
    refused(*said, model=f"{networks}:{function}")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import nothing_such", "line 1: cannot be imported: ModuleNotFoundError"),
        ("\ndef f(:", "SyntaxError"),
        ("\n\nraise SystemExit(3)", "line 3: cannot be imported: SystemExit"),
    ],
)
def test_a_file_that_cannot_be_imported(refused, tmp_path, code, said):
    (tmp_path / "bad.py").write_text(code)
    before = list(sys.path)
    refused(said, "bad.py", model=f"{tmp_path}/bad.py:f")
    assert sys.path == before


# Mistakes: images, options, device


def test_missing_or_odd_images(refused, images, networks, tmp_path):
    refused("--images", "nowhere does not exist", images=tmp_path / "nowhere")
    refused("no image in a class folder", "Set `--images` to a folder", images=tmp_path)
    (tmp_path / "one" / "cat").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(tmp_path / "one" / "cat" / "0.png")
    refused("only the class cat", images=tmp_path / "one")
    said = refused("is not a complete tar", images=networks)
    assert "data.path" not in said and "data.adapter" not in said
    refused("has 22 training images, --batch asks for 64", "--batch 22 or less", batch=64)


def test_broken_images_are_named(refused, tmp_path):
    for name in CLASSES:
        (tmp_path / name).mkdir()
        Image.new("RGB", (9, 9)).save(tmp_path / name / "0.png")
    refused("Channel 0 is the same in every pixel", images=tmp_path, batch=3)
    (tmp_path / "cat" / "0.png").write_text("no image")
    (tmp_path / "cow" / "0.png").write_bytes((tmp_path / "dog" / "0.png").read_bytes()[:40])
    said = refused("2 of the 3 chosen images cannot be read", "cat/0.png: not an image", images=tmp_path, batch=3)
    assert "cow/0.png: " in said and "0x" not in said


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("precision", "not of the form key=value"),
        ("=3", "not of the form key=value"),
        ("precission=float64", "--option precission: unknown key; did you mean --option precision?"),
        ("zzz=1", "--option zzz: unknown key; known keys: features, few_units"),
        (
            "precision=float16",
            "--option precision: expected one of float32, float64, got 'float16'; did you mean float64?",
        ),
        ("pieces=many", "--option pieces: expected a whole number, got 'many'"),
        ("pieces=8.5", "--option pieces: expected a whole number, got 8.5"),
        ("pieces=3", "option pieces: expected at least 4, got 3"),
        ("noise_batch=all", "--option noise_batch: expected a whole number or null, got 'all'"),
        ("noise_batch=true", "--option noise_batch: expected a whole number or null, got True"),
    ],
)
def test_a_wrong_option(refused, option, said):
    refused(said, more=(*FEW, "--option", option))


def test_wrong_proxies_and_device(refused, monkeypatch):
    refused("Unknown proxy 'nothing_such'", "synflow", more=("--proxies", "params,nothing_such"))
    refused("names no proxy", more=("--proxies", ","))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused("PyTorch finds no GPU", more=(*FEW, "--device", "cuda"))


def test_too_few_values_for_batch_normalisation_are_said(refused):
    more = ("--proxies", "zico", "--image-size", "16", "--option", "unit=microbatch")
    refused(
        "Batch normalisation in training mode cannot run on 1 image",
        "larger images",
        model="timm:resnet18",
        batch=8,
        more=more,
    )


def test_scores_are_printed_where_the_file_cannot_be_written(images, networks, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    command = ["score", "--model", f"{networks}:tiny", "--images", str(images), "--batch", "12", *FEW]
    assert cli.main([*command, "--image-size", "16", "--output", str(tmp_path / "file" / "score.json")]) == 2
    out, err = capsys.readouterr()
    assert "Cannot write" in err and "grad_norm" in out


def test_a_reader_that_stops_reading_is_no_error():
    command = [sys.executable, "-m", "libranas", "proxies", "--json"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_too_little_memory_is_said(refused, monkeypatch):
    def exhausted(*args, **options):
        raise torch.OutOfMemoryError("tried to allocate")

    monkeypatch.setattr("libranas.zero_cost.score.score", exhausted)
    refused("does not suffice for 12 images", "Lower --batch")


@pytest.mark.parametrize("wrong", [["--batch", "0"], ["--batch", "x"], ["--device", "tpu"], ["--channels", "2"], []])
def test_wrong_arguments_are_refused_by_the_parser(capsys, wrong):
    with pytest.raises(SystemExit) as caught:
        cli.main(["score", "--model", "timm:test_vit", *wrong])
    assert caught.value.code == 2 and "usage: libranas score" in capsys.readouterr().err


# libranas libra ---------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path) -> Path:
    """Sixty architectures of which one proxy knows much, one little and one nothing."""
    rng = np.random.default_rng(3)
    accuracy = rng.normal(size=60)
    columns = {"size": np.exp(accuracy + rng.normal(size=60)), "good": accuracy + 0.2 * rng.normal(size=60)}
    columns |= {"fair": accuracy + rng.normal(size=60), "noise": rng.normal(size=60), "top1": accuracy}
    path = tmp_path / "mine.csv"
    pd.DataFrame(columns, index=pd.Index([f"net{i}" for i in range(60)], name="network")).to_csv(path)
    return path


def test_libra_ranks_any_table(table, tmp_path, capsys):
    output = tmp_path / "methods.csv"
    more = ["--accuracy", "top1", "--params", "size", "--labels", "20", "--splits", "3"]
    more += ["--methods", "params,z1,libra_corrected,ridge_ranks,te_nas", "--output", str(output)]
    assert cli.main(["libra", str(table), *more]) == 0
    said = capsys.readouterr().out
    assert said.startswith("good is first: the highest Spearman with accuracy")
    assert "needs ntk_cond, linear_regions" in said
    methods = pd.read_csv(output).set_index("method")
    assert methods["spearman"]["z1"] > 0.9 > methods["spearman"]["params"]
    assert methods["labels"]["params"] == 0 and methods["labels"]["z1"] == 20


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "is no table of scores and accuracies ('accuracy')"),
        (["--accuracy", "top1", "--params", "size", "--labels", "55"], "both parts need 10 or more"),
        (["--accuracy", "top1", "--params", "size", "--methods", "best"], "Unknown combiner 'best'"),
    ],
)
def test_libra_refuses_what_it_cannot_use(table, capsys, more, said):
    assert cli.main(["libra", str(table), *more]) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and "Traceback" not in err
