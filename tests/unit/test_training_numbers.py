"""What a training is worth: exact sets, intervals, reassessed labels, metrics; and the command `libranas train`."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_runs import free_port, images, network, one_thread, steps, training  # noqa: F401

from libranas import cli
from libranas.core.files import read_json, write_json
from libranas.networks.load import Wanted, model_of
from libranas.training.checkpoints import Checkpoints
from libranas.training.distributed import World
from libranas.training.evaluation import Evaluation, evaluate, real_accuracy
from libranas.training.recipe import make_recipe
from libranas.training.results import outcome, over_seeds

PLAIN = make_recipe({"epochs": 2, "batch_size": 16, "lr": 3e-3})
GENOTYPE = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5], "
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=[2, 3, 4, 5])"
)
TINY = "timm:vit_tiny_patch16_224,img_size=8,patch_size=4,embed_dim=24,depth=1,num_heads=1"


# -- exact sets ----------------------------------------------------------------------------------------------


def shares(rank, size, port, folder):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    world = World.from_environment("cpu")
    run = training(folder / str(rank), PLAIN, world, network(0.0))
    result = run.evaluate(images(30, 1))
    few = run.evaluate(images(1, 1))
    if rank == 0:
        values = {k: np.asarray(v).tolist() for k, v in vars(result).items()}
        (folder / "result.json").write_text(json.dumps([values, few.images, few.confusion_KK.sum().item()]))
    world.close()
    os._exit(0)


@pytest.mark.parametrize("size", [2, 4])
def test_processes_count_every_image_once(tmp_path, size):
    """30 images on 4 processes: shares of 8, 8, 7 and 7; and one image, so that some have none."""
    import multiprocessing

    port, fork = free_port(), multiprocessing.get_context("fork")
    members = [fork.Process(target=shares, args=(rank, size, port, tmp_path)) for rank in range(size)]
    for member in members:
        member.start()
    for member in members:
        member.join(120)
    assert [member.exitcode for member in members] == [0] * size
    values, few, counted = json.loads((tmp_path / "result.json").read_text())
    alone = training(tmp_path / "alone", PLAIN, model=network(0.0)).evaluate(images(30, 1))
    assert values["images"] == 30 and few == counted == 1
    assert values["index_N"] == list(range(30)) and values["best_N5"] == alone.best_N5.tolist()
    assert (values["top1"], values["top5"]) == (alone.top1, alone.top5)
    assert values["loss"] == pytest.approx(alone.loss, abs=1e-6)
    assert values["confusion_KK"] == alone.confusion_KK.tolist()


def test_numbers_are_those_of_scikit_learn():
    from sklearn.metrics import confusion_matrix, log_loss, top_k_accuracy_score

    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 8, 50), torch.from_numpy(rng.normal(size=(50, 8)).astype(np.float32))
    loader = [(logits[i : i + 7], torch.arange(i, min(i + 7, 50))) for i in range(0, 50, 7)]
    result = evaluate(lambda x: x, loader, labels, 8, World(), torch.no_grad)
    scores = logits.softmax(1).double().numpy()
    assert result.top1 == pytest.approx(top_k_accuracy_score(labels, scores, k=1))
    assert result.top5 == pytest.approx(top_k_accuracy_score(labels, scores, k=5))
    assert result.loss == pytest.approx(log_loss(labels, scores / scores.sum(1, keepdims=True)), rel=1e-5)
    assert np.array_equal(result.confusion_KK, confusion_matrix(labels, logits.argmax(1), labels=range(8)))


def some(correct, count, **arguments):
    none = np.zeros((2, 2), int)
    return Evaluation(count, 0.5, correct / count, 1.0, none, np.arange(count), np.zeros((count, 2), int), **arguments)


def test_intervals():
    record = outcome(some(90, 100), images(104))
    assert (record["images"], record["unreadable"], record["top1"]) == (100, 4, 0.9)
    assert record["top1_low"] == pytest.approx(0.8256, abs=1e-4)  # Wilson, by hand
    assert record["top1_high"] == pytest.approx(0.9448, abs=1e-4)
    summary = over_seeds([outcome(some(k, 100), images(100)) for k in (88, 90, 92)])
    assert summary["top1"]["mean"] == pytest.approx(0.9) and summary["top1"]["values"] == [0.88, 0.9, 0.92]
    assert summary["top1"]["low"] == pytest.approx(0.9 - 4.3027 * 0.02 / 3**0.5, abs=1e-4)


class Named:
    """Names and labels alone."""

    def __init__(self, names):
        self.names = names

    def __len__(self):
        return len(self.names)

    def name(self, index):
        return self.names[index]


def test_reassessed_labels_of_imagenet():
    names = Named([f"val/n01440764/ILSVRC2012_val_{i + 1:08d}.JPEG" for i in range(50_000)])
    from timm.data import RealLabelsImagenet

    known = RealLabelsImagenet([""] * 50_000).real_labels
    sets = [known[f"ILSVRC2012_val_{i + 1:08d}.JPEG"] for i in range(50_000)]
    counted = [i for i in range(0, 50_000, 2) if sets[i]]
    best = np.full((25_000, 5), -1)
    for row, i in enumerate(range(0, 50_000, 2)):
        if sets[i]:
            best[row, 0 if i % 4 else 3] = sets[i][-1]
    result = Evaluation(25_000, 0.0, 0.0, 0.0, np.zeros((2, 2)), np.arange(0, 50_000, 2), best)
    real = real_accuracy(result, names)
    assert real["images"] == len(counted) and real["top5"] == 1
    assert real["top1"] == pytest.approx(np.mean([i % 4 != 0 for i in counted]))
    assert real_accuracy(result, Named(names.names[:-1])) is None
    assert real_accuracy(result, Named([str(i) for i in range(50_000)])) is None


# -- metrics -------------------------------------------------------------------------------------------------


def test_metrics_for_tensorboard_are_those_of_the_lines(tmp_path):
    def stop(record):
        if record["epoch"] == 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training(tmp_path, PLAIN, tensorboard=True, log_steps=1).fit(stop)
    training(tmp_path, PLAIN, tensorboard=True, log_steps=1).fit()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    for event, name in (("updates", "loss"), ("updates", "lr"), ("epoch", "val_accuracy")):
        ours = [(line["step"], line[name]) for line in lines if line["event"] == event]
        theirs = [(e.step, e.value) for e in events.Scalars(f"{event}/{name}")]
        assert [s for s, _ in ours] == [s for s, _ in theirs]
        assert [v for _, v in ours] == pytest.approx([v for _, v in theirs])
    assert all(line["images_per_second"] > 0 for line in lines if line["event"] == "updates")
    assert all(line["peak_bytes"] > 1e7 for line in lines if line["event"] == "updates")


def test_without_a_terminal_the_progress_is_told_in_lines(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("libranas.training.metrics.INTERVAL", 0.0)
    with caplog.at_level("INFO"):
        training(tmp_path, PLAIN, log_steps=3).fit()
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("update 3 of 10: loss")]
    assert len(lines) == 1 and "images/s" in lines[0] and "GiB" in lines[0] and "left" in lines[0]


def test_on_a_terminal_there_is_a_bar(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    training(tmp_path, PLAIN, log_steps=1).fit()
    shown = capsys.readouterr().err
    assert "images/s" in shown and "loss=" in shown and "memory=" in shown and "/160" in shown


# -- the command ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Class folders of 8 px images: red, green and blue noise."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 10)):
        for k, name in enumerate(("red", "green", "blue")):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 120, (9, 8, 3)).astype(np.uint8)
                pixels[..., k] += 100
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


def train(folder, output, *more):
    command = ["train", "--recipe", "smoke", "--model", TINY, "--data", f"folder:{folder}", "--output", str(output)]
    return cli.main([*command, "--set", "batch_size=16", *more])


def test_the_command_trains_tests_and_records(folder, tmp_path):
    assert train(folder, tmp_path, "--seeds", "2", "--set", "epochs=3") == 0
    summary = read_json(tmp_path / "result.json")
    assert summary["seeds"] == [0, 1] and summary["classes"] == ["blue", "green", "red"]
    values = []
    for seed in (0, 1):
        result = read_json(tmp_path / f"seed-{seed}" / "result.json")
        test = result["test"]
        values.append(test["top1"])
        assert result["seed"] == seed and result["recipe"]["epochs"] == 3 and len(result["history"]) == 3
        assert test["images"] == 30 and np.trace(test["confusion"]) == round(30 * test["top1"])
        assert test["top1_low"] <= test["top1"] <= test["top1_high"]
        assert result["splits"]["val"].startswith("0.1 of 72 training images")
        assert result["splits"]["test"] == "as in the data set" and result["unreadable"]["count"] == 0
    assert summary["test"]["top1"]["values"] == values
    a, b = (load_file(tmp_path / f"seed-{seed}/model.safetensors") for seed in (0, 1))
    assert a.keys() == b.keys() and any(not torch.equal(a[k], b[k]) for k in a)


def test_the_command_goes_on_and_refuses_changes(folder, tmp_path, capsys):
    assert train(folder, tmp_path) == 0
    first = read_json(tmp_path / "result.json")
    assert train(folder, tmp_path) == 0
    again = read_json(tmp_path / "result.json")
    assert again["history"] == first["history"] and again["test"] == first["test"]
    assert train(folder, tmp_path, "--set", "epochs=4") == 2
    assert "epochs was 2, is 4" in capsys.readouterr().err
    assert train(folder, tmp_path, "--set", "epochs=4", "--accept", "epochs") == 0
    assert train(folder, tmp_path, "--val-share", "0.2") == 2
    assert "are of another run" in capsys.readouterr().err


def test_what_is_exported_loads_and_its_card_tells_how_it_was_made(folder, tmp_path):
    scores = {"scores": {"lswag": {"value": 12.5}, "zen": {"value": None}}}
    (tmp_path / "score.json").write_text(json.dumps(scores))
    more = ("--scores", str(tmp_path / "score.json"), "--licence", "cc0-1.0")
    assert train(folder, tmp_path / "run", *more) == 0
    model = timm.create_model(f"local-dir:{tmp_path / 'run/export'}", pretrained=True)
    weights = load_file(tmp_path / "run/model.safetensors")
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    assert model.pretrained_cfg["label_names"] == ["blue", "green", "red"]
    card, result = (tmp_path / "run/export/README.md").read_text(), read_json(tmp_path / "run/result.json")
    low, high = (100 * result["test"][k] for k in ("top1_low", "top1_high"))
    assert f"* test accuracy on 30 images: {result['test']['top1']:.2%}".replace("%", " %") in card
    assert f"(95 % interval {low:.2f} to {high:.2f})" in card
    for words in ("license: cc0-1.0", "| lswag | 12.5 |", "warmup_epochs: 1.0", '"train": 65', "seed: 0", "* seed: 0"):
        assert words in card, words
    assert str(folder) not in card


@pytest.mark.parametrize(
    "model",
    [
        "nasbench201,width=4,cells=1:(4, 0, 3, 1, 4, 3)",
        "darts,width=4,layers=3:{GENOTYPE}",
        "{file},embed_dim=[8],patch_size=4,head_dim=4,max_relative_position=1,mlp_ratio=[2.0]",
        "{code}:build",
    ],
)
def test_networks_that_no_search_found(folder, tmp_path, model):
    arch = {"DEPTH": 2, "EMBED_DIM": 8, "MLP_RATIO": [2.0, 2.0], "NUM_HEADS": [1, 2]}
    (tmp_path / "net.yaml").write_text(yaml.safe_dump({"RETRAIN": arch}))
    code = "from torch import nn\n\n\ndef build(classes):\n"
    code += "    return nn.Sequential(nn.Flatten(), nn.Linear(192, classes))\n"
    (tmp_path / "net.py").write_text(code)
    model = model.format(GENOTYPE=GENOTYPE, file=tmp_path / "net.yaml", code=tmp_path / "net.py")
    output = tmp_path / "run"
    assert train(folder, output, "--model", model, "--image-size", "8", "--set", "drop_path=0.0") == 0
    result = read_json(output / "result.json")
    assert result["test"]["images"] == 30 and np.isfinite(result["history"][-1]["loss"])
    assert (output / "export").exists() == ("build" not in model) and (output / "model.safetensors").exists()
    if (output / "export").exists():  # and again, from its own export
        assert train(folder, tmp_path / "again", "--model", str(output / "export"), "--set", "drop_path=0.0") == 0


NETWORKS = """
import timm
from torch import nn

def relu(classes):
    net = timm.create_model("vit_tiny_patch16_224", img_size=16, embed_dim=8, depth=1, num_heads=2, num_classes=classes)
    net.blocks[0].mlp.act = nn.ReLU()
    return net

class Branches(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(768, classes))

    def forward(self, images):
        logits = self.layers(images)
        return logits if logits.sum().item() > 1e9 else 2 * logits

def tied(classes):
    net = Branches(classes)
    net.again = net.layers
    return net

class Pairs(Branches):
    def forward(self, images):
        return (self.layers(images),) * 2 if self.training else self.layers(images)

class Stateful(Branches):
    def get_extra_state(self):
        return {}

class Described(Branches):
    pretrained_cfg = {"mean": 0.5}

def frozen(classes):
    return Branches(classes).requires_grad_(False)

def lazy(classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))

def many(classes):
    return Branches(7)
"""


@pytest.fixture
def networks(tmp_path, monkeypatch):
    """A file of networks; exports are loaded back in this process, because another one takes seconds."""
    from libranas.export import comparison, timm

    monkeypatch.setattr(timm, "record_of", lambda folder, fresh: comparison.record_of(folder, False))
    (tmp_path / "nets.py").write_text(NETWORKS)
    return tmp_path / "nets.py"


def test_a_network_that_timm_cannot_load_becomes_a_program(folder, networks, tmp_path, caplog):
    run = tmp_path / "run"
    (run / "export").mkdir(parents=True)  # of other weights
    caplog.set_level("INFO", "libranas")
    assert train(folder, run, "--model", f"{networks}:relu", "--image-size", "16") == 0
    assert sorted(path.name for path in run.iterdir()) == [
        *("checkpoints", "metrics.jsonl", "model.pt2", "model.safetensors", "result.json"),
    ]
    net = model_of(f"{networks}:relu", Wanted(3))[0].eval()
    net.load_state_dict(load_file(run / "model.safetensors"))
    images = torch.randn(5, 3, 16, 16)
    torch.testing.assert_close(torch.export.load(run / "model.pt2").module()(images), net(images))
    said = [record.getMessage() for record in caplog.records]
    refused = [i for i, words in enumerate(said) if "the module blocks.0.mlp.act is ReLU()" in words]
    (epoch,) = (i for i, words in enumerate(said) if words.startswith("epoch 2 of 2"))
    assert refused[0] < epoch < refused[1]


@pytest.mark.parametrize("name", ["Branches", "tied"])
def test_of_a_network_that_no_format_has_the_weights_are_kept(folder, networks, tmp_path, caplog, name):
    assert train(folder, tmp_path / "run", "--model", f"{networks}:{name}", "--image-size", "16") == 0
    kept = load_file(tmp_path / "run/model.safetensors")
    assert torch.equal(kept["layers.1.weight"], kept.get("again.1.weight", kept["layers.1.weight"]))
    assert not (tmp_path / "run/model.pt2").exists() and "cannot be written as pt2" in caplog.text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Pairs", "returns tuple for images of shape (2, 3, 16, 16)"),
        ("Stateful", "has _extra_state, which is no tensor"),
        ("Described", "pretrained_cfg of Described is no description of timm"),
        ("frozen", "No parameter of Branches is trained"),
        ("lazy", "the parameter 1.weight has no shape yet"),
        ("many", "has 7 outputs, but the images have 3 classes"),
    ],
)
def test_networks_that_cannot_be_trained_are_refused_at_once(folder, networks, tmp_path, capsys, name, said):
    assert train(folder, tmp_path / "run", "--model", f"{networks}:{name}", "--image-size", "16") == 2
    assert said in capsys.readouterr().err


def test_all_training_images_can_be_used(folder, tmp_path):
    assert train(folder, tmp_path, "--val-share", "0") == 0
    result = read_json(tmp_path / "result.json")
    assert "val_accuracy" not in result["history"][-1] and "val" not in result["splits"]
    assert result["test"]["images"] == 30


def test_unreadable_images_are_named(folder, tmp_path, capsys):
    import shutil

    shutil.copytree(folder, tmp_path / "images")
    (tmp_path / "images/train/red/0.png").write_bytes(b"\x89PNG no image")
    (tmp_path / "images/test/blue/3.png").write_bytes(b"")
    more = ("--val-share", "0", "--set", "repeats=1")
    assert train(tmp_path / "images", tmp_path / "strict", *more) == 2
    assert "train/red/0.png cannot be read" in capsys.readouterr().err
    assert train(tmp_path / "images", tmp_path / "lenient", "--bad-images", "2", *more) == 0
    result = read_json(tmp_path / "lenient" / "result.json")
    assert set(result["unreadable"]["images"]) == {"train/red/0.png", "test/blue/3.png"}
    assert result["test"]["images"] == 29 and result["test"]["unreadable"] == 1


def test_fine_tuning_begins_with_given_weights(folder, tmp_path, capsys):
    assert train(folder, tmp_path / "first") == 0
    weights = load_file(tmp_path / "first" / "model.safetensors")
    other = {k: v for k, v in weights.items() if not k.startswith("head.")}
    save_file(other, tmp_path / "body.safetensors")
    more = ("--weights", str(tmp_path / "body.safetensors"), "--set", "ema=null")
    more += tuple(f"--set={name}=1e-9" for name in ("lr", "min_lr", "warmup_lr"))
    assert train(folder, tmp_path / "tuned", *more) == 0
    tuned = load_file(tmp_path / "tuned" / "model.safetensors")
    assert all(torch.allclose(tuned[k], other[k], atol=1e-6) for k in other)
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    assert train(folder, tmp_path / "x", "--weights", str(tmp_path / "foreign.safetensors")) == 2
    assert "has 0 of the model's" in capsys.readouterr().err


def test_fine_tuning_at_another_size_keeps_the_positions():
    from timm.layers import resample_abs_pos_embed

    from libranas.training.weights import load_weights

    small, large = network(), network(img_size=32)
    with tempfile.TemporaryDirectory() as folder:
        save_file(small.state_dict(), Path(folder, "small.safetensors"))
        load_weights(large, Path(folder, "small.safetensors"))
    assert torch.equal(large.pos_embed, resample_abs_pos_embed(small.pos_embed, (4, 4)))
    assert torch.equal(large.head.weight, small.head.weight)


def test_networks_are_built_as_the_recipe_and_training_want_them(tmp_path):
    """Stochastic depth 0 wins over the rate in a file, and attention is fused."""
    from timm.layers import DropPath

    from libranas.export.timm import export_timm

    export_timm(network(), tmp_path, 16, list("abcd"), [0.5] * 3, [0.2] * 3, "", fresh=False)
    config = read_json(tmp_path / "config.json")
    config["model_args"]["drop_path_rate"] = 0.3
    write_json(tmp_path / "config.json", config)

    def rates(rate):
        model, *_ = model_of(str(tmp_path), Wanted(4, drop_path=rate))
        return max((m.drop_prob for m in model.modules() if isinstance(m, DropPath)), default=0.0)

    assert [rates(rate) for rate in (None, 0.0, 0.1)] == pytest.approx([0.3, 0.0, 0.1])
    (tmp_path / "net.yaml").write_text(
        yaml.safe_dump({"RETRAIN": {"DEPTH": 1, "EMBED_DIM": 8, "MLP_RATIO": [2.0], "NUM_HEADS": [2]}})
    )
    file = f"{tmp_path / 'net.yaml'},embed_dim=[8],patch_size=4,head_dim=4,max_relative_position=1,mlp_ratio=[2.0]"
    for fused in (True, False):
        model, *_ = model_of(file, Wanted(4, image_size=8, fused=fused))
        assert {m.fused_attn for m in model.modules() if hasattr(m, "fused_attn")} == {fused}


def test_an_export_names_how_its_images_were_tested(folder, tmp_path):
    assert train(folder, tmp_path, "--set", "crop_pct=0.8", "--set", "interpolation=random") == 0
    config = read_json(tmp_path / "export/config.json")["pretrained_cfg"]
    assert (config["crop_pct"], config["interpolation"]) == (0.8, "bilinear")


def test_what_the_command_refuses(folder, tmp_path, capsys):
    def said(*more):
        assert train(folder, tmp_path / "x", *more) == 2
        return capsys.readouterr().err

    assert "--set epoch: unknown key; did you mean --set epochs?" in said("--set", "epoch=3")
    assert "--set lr: expected a number, got 'high'" in said("--set", "lr=high")
    assert "no recipe 'smok'" in said("--recipe", "smok")
    for text in ("", "[]", '{"scores": 1}', '{"scores": {"zen": {}}}'):
        (tmp_path / "scores.json").write_text(text)
        assert "holds no scores" in said("--scores", str(tmp_path / "scores.json"))
    assert "holds no scores" in said("--scores", "nowhere.json")
    assert "is no data set of the form KIND:PATH" in said("--data", str(folder))
    assert "folder:PATH '/nowhere' does not exist" in said("--data", "folder:/nowhere")
    assert "timm" in said("--model", "timm:vit_tin")
    assert cli.main(["train", "--recipe", "smoke", "--data", "digits"]) == 2
    assert "--model and --output not given" in capsys.readouterr().err
    assert cli.main(["train", "--recipe", "list"]) == 0
    assert "autoformer500: 500 epochs, batch 1024" in capsys.readouterr().out


@pytest.mark.cluster
def test_under_torchrun_a_signal_ends_it_and_the_same_command_goes_on(folder, tmp_path):
    """torchrun passes SIGTERM on to its processes; both write one checkpoint together and end."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())),
        *("-m", "libranas", "train", "--recipe", "smoke", "--model", TINY, "--data", f"folder:{folder}"),
        *("--set", "batch_size=16", "--set", "epochs=30", "--device", "cpu", "--checkpoint-minutes", "100"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(cli.__file__).parents[2])}

    def start():
        arguments = [*command, "--output", str(tmp_path)]
        return subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    process = start()
    metrics = tmp_path / "metrics.jsonl"
    while not (metrics.exists() and '"epoch":2' in metrics.read_text()):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=900)
    assert "Stopped by SIGTERM, after update" in output
    newest = steps(Checkpoints(tmp_path / "checkpoints"))[0]
    assert f"after update {newest} of 120" in output and process.returncode != 0
    process = start()
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0 and f"Going on after update {newest} of 120" in output
    result = read_json(tmp_path / "result.json")
    assert len(result["history"]) == 30 and result["processes"] == 2 and result["test"]["images"] == 30
