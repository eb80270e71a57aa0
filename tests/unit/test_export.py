"""Exports come back through timm's own loader, bit-equal, or not at all."""

import json

import pytest
import timm
import torch

import libranas.export
from libranas.errors import LibranasError
from libranas.export import export_timm, model_card
from libranas.nets import build
from libranas.spaces import AutoFormerSpace


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


def export(net, folder, card="# card\n"):
    channels = net.in_chans
    export_timm(net, folder, 12, ["cat", "dog", "cow"], [0.4] * channels, [0.2] * channels, card)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("relative_position", [True, False])
def test_round_trip_is_bit_equal(tmp_path, channels, relative_position):
    net = network(channels, relative_position)
    export(net, tmp_path / "winner")
    loaded = timm.create_model(f"local-dir:{tmp_path / 'winner'}", pretrained=True).eval()
    ours, theirs = net.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
    x = torch.randn(2, channels, 12, 12)
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
