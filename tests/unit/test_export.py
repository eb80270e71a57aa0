"""Exports come back through timm's own loader, bit-equal, or not at all."""

import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from torch import nn
from torch.nn.utils import parametrizations

import libranas.export
from libranas import cli
from libranas.core.errors import LibranasError
from libranas.export.comparison import NotExported
from libranas.export.formats import FORMATS, export_as
from libranas.export.model_card import model_card
from libranas.export.timm import export_timm
from libranas.networks import build
from libranas.spaces import AutoFormerSpace, DARTSSpace, NASBench201Space, PiTSpace


def network(channels=1, relative_position=True):
    s = AutoFormerSpace((12, 18), (2,), (1, 2), (1.5, 2.0), 4, 12, 4, channels, 3, relative_position, 1)
    return build(s, s.arch(18, (2, 1), (1.5, 2.0)), seed=4, drop_path_rate=0.2, fused=True, timm=True).train()


def wide():
    genes = {"pool": "token", "stem": "conv", "position": "sincos", "mlp": "swiglu", "qk_norm": True}
    s = AutoFormerSpace((12,), (1,), (1, 2), (0.5, 2.0), 4, 12, 4, 1, 3, layer_scale=True, **genes)
    return build(s, s.arch(12, (2,), (2.0,)), seed=4, drop_path_rate=0.2, fused=True, timm=True).train()


def relative():
    """Without learned absolute positions."""
    s = AutoFormerSpace((12,), (1,), (1, 2), (2.0,), 4, 12, 4, 1, 3, max_relative_position=2, position="relative")
    return build(s, s.arch(12, (2,), (2.0,)), seed=4, fused=True, timm=True).train()


def pit():
    s = PiTSpace((4,), (1.5,), ((1,), (2,), (1,)), (1, 2), image_size=12, patch_size=4, channels=1, classes=3)
    return build(s, s.extremes()[1], seed=4, drop_path_rate=0.2, fused=True, timm=True).train()


def export(net, folder, card="# card\n", **more):
    channels = net.in_chans
    how = {"fresh": False, **more}  # a process takes seconds
    export_timm(net, folder, 12, ["cat", "dog", "cow"], [0.4] * channels, [0.2] * channels, card, **how)


NETWORKS = pytest.mark.parametrize(
    "make",
    [network, lambda: network(3, relative_position=False), relative, wide, pit],
    ids=["both", "plain", "relative", "wide", "pit"],
)


@NETWORKS
def test_round_trip_is_bit_equal(tmp_path, make):
    net = make()
    export(net, tmp_path / "winner")
    loaded = timm.create_model(f"local-dir:{tmp_path / 'winner'}", pretrained=True).eval()
    ours, theirs = net.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
    x = torch.randn(2, net.in_chans, 12, 12)
    torch.testing.assert_close(loaded(x), net.eval()(x))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["winner"]


def test_the_folder_says_what_the_network_needs(tmp_path):
    export(network(3), tmp_path / "winner", card="# my card\n")
    config = json.loads((tmp_path / "winner" / "config.json").read_text())
    assert config["architecture"] == "libranas_autoformer" and config["label_names"] == ["cat", "dog", "cow"]
    assert config["model_args"]["num_heads"] == [2, 1] and config["num_classes"] == 3
    cfg = timm.create_model(f"local-dir:{tmp_path / 'winner'}", pretrained=True).pretrained_cfg
    assert tuple(cfg["input_size"]) == (3, 12, 12)
    assert tuple(cfg["mean"]) == (0.4,) * 3 and tuple(cfg["std"]) == (0.2,) * 3
    assert (tmp_path / "winner" / "README.md").read_text() == "# my card\n"
    assert (tmp_path / "winner" / "model.safetensors").exists()


def test_further_files_lie_beside_it(tmp_path):
    export(network(), tmp_path / "winner", extra={"autoformer.yaml": "RETRAIN: {}\n"})
    assert (tmp_path / "winner" / "autoformer.yaml").read_text() == "RETRAIN: {}\n"


def test_an_old_export_is_replaced_whole(tmp_path):
    folder = tmp_path / "winner"
    folder.mkdir()
    (folder / "stale.txt").write_text("x")
    (tmp_path / ".winner.new").mkdir()  # left by a kill
    (tmp_path / ".winner.new" / "stale.txt").write_text("x")
    export(network(), folder)
    assert not (folder / "stale.txt").exists() and sorted(p.name for p in tmp_path.iterdir()) == ["winner"]


def test_a_network_that_does_not_come_back_is_not_exported(tmp_path, monkeypatch):
    real = timm.create_model

    def damaged(*args, **kwargs):
        net = real(*args, **kwargs)
        with torch.no_grad():
            net.head.bias[0] += 1e-6
        return net

    monkeypatch.setattr(libranas.export.timm.timm, "create_model", damaged)
    with pytest.raises(LibranasError, match=r"weights head\.bias do not load"):
        export(network(), tmp_path / "winner")
    assert not (tmp_path / "winner").exists()


# -- networks that timm does not load ------------------------------------------------------------------------


def changed(change=lambda net: None, **arguments):
    """A network of timm, changed afterwards."""
    tiny = {"img_size": 12, "patch_size": 6, "embed_dim": 12, "depth": 2, "num_heads": 2, "num_classes": 3}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = timm.create_model("vit_tiny_patch16_224", **{**tiny, **arguments})
        change(net)
    net.in_chans = 3
    return net


def twice(net):
    forward = type(net).forward
    net.forward = types.MethodType(lambda self, images: 2 * forward(self, images), net)


def relu(net):
    net.blocks[1].mlp.act = nn.ReLU()


def head(net):
    net.head = nn.Sequential(nn.Linear(12, 8), nn.Linear(8, 3))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (relu, "the module blocks.1.mlp.act is ReLU(), and GELU("),
        (lambda net: setattr(net, "norm", nn.LayerNorm(12, eps=1e-5)), "the module norm is LayerNorm((12,), eps=1e-05"),
        (lambda net: setattr(net.blocks[0], "mlp", nn.Linear(12, 12)), 'Missing key(s) in state_dict: "blocks.0.mlp'),
        (head, 'Missing key(s) in state_dict: "head.weight"'),
        (lambda net: parametrizations.weight_norm(net.head), '"head.parametrizations.weight.original0"'),
        (
            lambda net: net.blocks[0].register_forward_hook(lambda part, inputs, output: -output),
            "the module blocks.0, ",
        ),
        (lambda net: net.register_buffer("mask", torch.ones(3)), 'Unexpected key(s) in state_dict: "mask"'),
        (twice, "the network itself, VisionTransformer(), computes something else"),
        (lambda net: net.head.double(), "Double"),
        (lambda net: setattr(net, "pretrained_cfg", {}), "KeyError: 'input_size'"),
        (lambda net: setattr(net, "pretrained_cfg", "vit"), "AttributeError"),
        (lambda net: delattr(net, "pretrained_cfg"), "is not made by timm"),
        (lambda net: net.pretrained_cfg.update(architecture="vit_of_mine"), "Unknown model (vit_of_mine)"),
    ],
)
def test_what_timm_does_not_load_back_is_named(tmp_path, change, said):
    (tmp_path / "net").mkdir()
    (tmp_path / "net/config.json").write_text("of other weights")
    with pytest.raises(NotExported) as error:
        export(changed(change), tmp_path / "net")
    assert said in error.value.what and "\n" not in error.value.what and not list(tmp_path.iterdir())


def test_arguments_of_timm_are_exported_as_the_advice_says(tmp_path):
    export(changed(act_layer="relu"), tmp_path / "net")
    assert isinstance(timm.create_model(f"local-dir:{tmp_path / 'net'}").blocks[0].mlp.act, nn.ReLU)


@pytest.mark.parametrize(
    "change",
    [
        lambda net: setattr(net, "head", nn.Linear(12, 5)),
        lambda net: net.reset_classifier(5),
        lambda net: net.requires_grad_(False),
        lambda net: setattr(net, "head_drop", nn.Dropout(0.5)),
        lambda net: net.set_grad_checkpointing(),
        lambda net: setattr(net.blocks[0].attn, "fused_attn", False),
        lambda net: net.register_buffer("mask", torch.ones(3), persistent=False),
        lambda net: net.to(memory_format=torch.channels_last),
    ],
)
def test_what_does_not_change_the_logits_is_exported(tmp_path, change):
    net = changed(change)
    export(net, tmp_path / "net")
    loaded = timm.create_model(f"local-dir:{tmp_path / 'net'}", pretrained=True).eval()
    x = torch.randn(2, 3, 12, 12)
    torch.testing.assert_close(loaded(x), net(x))


def test_code_that_changes_timm_itself_is_found_in_a_fresh_process(tmp_path, monkeypatch):
    forward = timm.layers.Mlp.forward
    monkeypatch.setattr(timm.layers.Mlp, "forward", lambda self, x: 1.5 * forward(self, x))
    export(changed(), tmp_path / "net")
    with pytest.raises(NotExported, match=r"the module blocks\.0\.mlp, Mlp\(\), computes something else"):
        export(changed(), tmp_path / "net", fresh=True)


def test_an_export_that_timm_cannot_load_says_why(tmp_path):
    export(changed(), tmp_path / "net")
    config = json.loads((tmp_path / "net/config.json").read_text())
    (tmp_path / "net/config.json").write_text(json.dumps(config | {"architecture": "vit_of_mine"}))
    with pytest.raises(LibranasError, match=r"timm cannot load the network in .*Unknown model"):
        export_as(tmp_path / "net", "pth", tmp_path / "net.pth")


FACTS = {
    **{"gpu": [], "cpu": "Some CPU", "cores": 2, "python": "3.11.7", "packages": {"torch": "2.14.1", "timm": "1.0.31"}},
    **{"libranas": "0.1.0", "commit": None, "time": "2026-01-01T00:00:00+00:00"},
}


def test_the_card_tells_how_to_load_and_what_it_is():
    accuracy = {"test accuracy": "92.28 % (91.64 to 92.92)", "seeds": 3}
    card = model_card(
        "digits: winner", {"parameters": 5}, accuracy, {"classes": ["a"]}, {"lr": 0.1}, FACTS, {"lswag": 1.5}, "mit"
    )
    _, header, text = card.split("---\n", 2)
    assert yaml.safe_load(header)["license"] == "mit" and yaml.safe_load(header)["library_name"] == "timm"
    assert text.startswith("# digits: winner\n") and "import libranas.nets" in text and "pretrained=True" in text
    for line in ("* test accuracy: 92.28 % (91.64 to 92.92)", "* parameters: 5", '* classes: ["a"]', "| lswag | 1.5 |"):
        assert f"\n{line}\n" in text, line
    assert "lr: 0.1" in text and "Some CPU, 2 cores; Python 3.11.7, torch 2.14.1, timm 1.0.31" in text
    card = model_card("x", {}, {}, {}, {}, {**FACTS, "gpu": ["A GPU"]})
    assert "license" not in card and "It was not scored." in card and "A GPU; Python" in card
    assert "Not stated" in card


# -- other formats -------------------------------------------------------------------------------------------


#: An export takes seconds; of the plain network the others have all parts.
EXPORTED = pytest.mark.parametrize("make", [network, wide, pit], ids=["both", "wide", "pit"])


def same_for_other_batches(net, run):
    for size in (1, 5):
        x = torch.randn(size, net.in_chans, 12, 12)
        torch.testing.assert_close(run(x), net.eval()(x).detach(), rtol=1e-4, atol=1e-5)


@EXPORTED
def test_onnx_gives_the_same_logits_for_any_batch(tmp_path, make):
    import onnxruntime

    net = make()
    export(net, tmp_path / "winner")
    assert export_as(tmp_path / "winner", "onnx", tmp_path / "net.onnx") < 1e-5
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"))
    (name,) = (i.name for i in session.get_inputs())
    same_for_other_batches(net, lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0]))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx", "winner"]


@EXPORTED
def test_a_program_gives_the_same_logits_for_any_batch(tmp_path, make):
    net = make()
    export(net, tmp_path / "winner")
    assert export_as(tmp_path / "winner", "pt2", tmp_path / "net.pt2") < 1e-5
    same_for_other_batches(net, torch.export.load(tmp_path / "net.pt2").module())
    if make is network:  # neither timm nor this package is needed
        code = f"""
import sys
sys.modules["timm"] = sys.modules["libranas"] = None
import torch
print(torch.export.load({str(tmp_path / "net.pt2")!r}).module()(torch.zeros(3, 1, 12, 12)).shape)
"""
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "torch.Size([3, 3])" in run.stdout, run.stderr


def test_a_plain_state_dict(tmp_path):
    net = network()
    export(net, tmp_path / "winner")
    assert export_as(tmp_path / "winner", "pth", tmp_path / "net.pth") == 0
    state = torch.load(tmp_path / "net.pth", weights_only=True)
    assert state.keys() == net.state_dict().keys()
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("space", [NASBench201Space(16, 3, 4, 4, 1), DARTSSpace(16, 3, 4, 4, 3)], ids=["201", "darts"])
def test_convolutional_networks_in_every_format(tmp_path, space):
    net = build(space, space.sample(np.random.default_rng(1)), seed=0, timm=True)
    export_timm(net, tmp_path / "net", 16, list("abcd"), [0.5] * 3, [0.2] * 3, "", fresh=False)
    for kind in FORMATS:
        assert export_as(tmp_path / "net", kind, tmp_path / f"net.{kind}") < 1e-4


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_computes_something_else_is_not_kept(tmp_path, monkeypatch, kind):
    export(network(), tmp_path / "winner")
    path = tmp_path / f"net.{kind}"
    path.write_text("old")
    monkeypatch.setattr("libranas.export.formats.TOLERANCE", -1.0)
    with pytest.raises(LibranasError, match=rf"The logits of .* as {kind} differ from PyTorch's by"):
        export_as(tmp_path / "winner", kind, path)
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 2


def test_what_an_exporter_cannot_do_is_one_message_and_no_file(tmp_path, monkeypatch, capsys):
    export(network(), tmp_path / "winner")

    def fails(model, path, size):
        path.write_text("half")
        try:
            raise ValueError("Cannot view a tensor\nWhile executing %view")
        except ValueError as error:
            raise RuntimeError("three pages") from error

    monkeypatch.setitem(FORMATS, "onnx", (fails, ()))
    assert cli.main(["export", str(tmp_path / "winner"), "--to", "onnx"]) == 2
    said = capsys.readouterr().err
    assert "cannot be written as onnx: ValueError: Cannot view a tensor.\n  -> Use another format: --to pt2" in said
    assert not list((tmp_path / "winner").glob("*onnx*"))


def test_onnx_without_its_packages_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(LibranasError, match=r"needs the package onnx(.|\n)*libranas\[onnx\]"):
        export_as(tmp_path, "onnx", tmp_path / "net.onnx")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_folder_that_is_no_export(tmp_path, kind):
    with pytest.raises(LibranasError, match="is no exported network"):
        export_as(tmp_path, kind, tmp_path / "net")


# -- the hub -------------------------------------------------------------------------------------------------


def test_an_upload_happens_only_when_asked_for(tmp_path, monkeypatch, capsys):
    export(network(), tmp_path / "winner")
    calls = []

    class Api:
        def create_repo(self, name, private, exist_ok):
            calls.append(("create", name, private))

        def upload_folder(self, repo_id, folder_path, commit_message):
            calls.append(("upload", repo_id, sorted(p.name for p in Path(folder_path).iterdir())))

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    folder = str(tmp_path / "winner")
    assert cli.main(["export", folder, "--to", "pth"]) == 0 and not calls
    assert cli.main(["export", folder, "--push", "me/net"]) == 0
    assert calls == [
        ("create", "me/net", True),
        ("upload", "me/net", ["README.md", "config.json", "model.pth", "model.safetensors"]),
    ]
    assert "https://huggingface.co/me/net" in capsys.readouterr().out

    def refuse(self, name, private, exist_ok):
        raise ValueError("no token")

    monkeypatch.setattr(Api, "create_repo", refuse)
    assert cli.main(["export", folder, "--push", "me/net"]) == 2
    assert "was not uploaded to me/net: no token" in capsys.readouterr().err


def test_an_export_without_anything_to_do(tmp_path, capsys):
    assert cli.main(["export", str(tmp_path)]) == 2
    assert "--to onnx, --to pt2, --to pth" in capsys.readouterr().err
    assert cli.main(["export", str(tmp_path), "--to", "pth", "--to", "pt2", "--output", "x"]) == 2
    assert "--output names one file" in capsys.readouterr().err
