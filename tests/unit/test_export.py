"""Exports come back through timm's own loader, bit-equal, or not at all."""

import json
import sys

import pytest
import timm
import torch

import libranas.export
from libranas.errors import LibranasError
from libranas.export import export_onnx, export_timm, model_card
from libranas.nets import build
from libranas.spaces import AutoFormerSpace, PiTSpace


def space(channels, relative_position):
    return AutoFormerSpace(
        (12, 18),
        (2,),
        (1, 2),
        (1.5, 2.0),
        head_dim=4,
        image_size=12,
        patch_size=4,
        channels=channels,
        classes=3,
        relative_position=relative_position,
        max_relative_position=1,
    )


def network(channels=1, relative_position=True):
    s = space(channels, relative_position)
    return build(s, s.arch(18, (2, 1), (1.5, 2.0)), seed=4, drop_path_rate=0.2, fused=True).train()


def pit():
    s = PiTSpace((4,), (1.5,), ((1,), (2,), (1,)), (1, 2), image_size=12, patch_size=4, channels=1, classes=3)
    return build(s, s.extremes()[1], seed=4, drop_path_rate=0.2, fused=True).train()


def export(net, folder, card="# card\n", **more):
    channels = net.in_chans
    export_timm(net, folder, 12, ["cat", "dog", "cow"], [0.4] * channels, [0.2] * channels, card, **more)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("relative_position", [True, False])
def test_round_trip_is_bit_equal(tmp_path, channels, relative_position):
    check_round_trip(network(channels, relative_position), tmp_path)


def test_round_trip_of_a_pit(tmp_path):
    check_round_trip(pit(), tmp_path)


def check_round_trip(net, tmp_path):
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

    monkeypatch.setattr(libranas.export.timm, "create_model", damaged)
    with pytest.raises(LibranasError, match="does not load back bit-equal"):
        export(network(), tmp_path / "winner")
    assert not (tmp_path / "winner").exists()


def test_the_card_tells_how_to_load_and_what_it_is():
    card = model_card("digits: winner", {"id": "abc", "params": 5}, {"test_accuracy": 0.5})
    assert card.startswith("# digits: winner\n") and "import libranas.nets" in card and "pretrained=True" in card
    blocks = [json.loads(part.split("```")[0]) for part in card.split("```json\n")[1:]]
    assert blocks == [{"id": "abc", "params": 5}, {"test_accuracy": 0.5}]


# -- ONNX ----------------------------------------------------------------------------------------------------


@pytest.fixture
def exporter():
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="ONNX export is optional: pip install 'libranas[onnx]'")


@pytest.mark.parametrize(
    "make", [network, lambda: network(3, relative_position=False), pit], ids=["relative", "plain", "pit"]
)
def test_onnx_gives_the_same_logits_for_any_batch(exporter, tmp_path, make):
    import onnxruntime

    net = make()
    export(net, tmp_path / "winner")
    assert export_onnx(tmp_path / "winner", tmp_path / "net.onnx") < 1e-5
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"))
    (name,) = (i.name for i in session.get_inputs())
    for size in (1, 5):
        x = torch.randn(size, net.in_chans, 12, 12)
        (theirs,) = session.run(None, {name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(theirs), net.eval()(x).detach(), rtol=1e-4, atol=1e-5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx", "winner"]


def test_an_onnx_file_that_computes_something_else_is_not_kept(exporter, tmp_path, monkeypatch):
    export(network(), tmp_path / "winner")
    (tmp_path / "net.onnx").write_text("old")
    monkeypatch.setattr(libranas.export, "ONNX_TOLERANCE", -1.0)
    with pytest.raises(LibranasError, match=r"ONNX Runtime's logits .* differ from PyTorch's by"):
        export_onnx(tmp_path / "winner", tmp_path / "net.onnx")
    assert (tmp_path / "net.onnx").read_text() == "old" and len(list(tmp_path.iterdir())) == 2


def test_onnx_without_its_packages_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(LibranasError, match=r"needs the package onnx(.|\n)*libranas\[onnx\]"):
        export_onnx(tmp_path, tmp_path / "net.onnx")


def test_onnx_of_a_folder_that_is_no_export(exporter, tmp_path):
    with pytest.raises(LibranasError, match="is no exported network"):
        export_onnx(tmp_path, tmp_path / "net.onnx")
