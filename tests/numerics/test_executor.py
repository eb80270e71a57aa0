"""AutoFormer networks by hand against the same networks by autograd."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from libranas.core.scorecard import ScoreCard
from libranas.networks import build
from libranas.networks.autoformer import Attention, AutoFormerViT
from libranas.spaces import make_space
from libranas.zero_cost.anatomy import examine
from libranas.zero_cost.executor import Executor, follows
from libranas.zero_cost.hooks import Recorder
from libranas.zero_cost.passes import context
from libranas.zero_cost.passes.context import Context
from libranas.zero_cost.registry import list_proxies
from libranas.zero_cost.score import score

WIDE = {"embed_dim": 24, "num_heads": [2, 1, 3], "mlp_ratio": [2.0, 1.0, 0.5], "head_dim": 8, "init_std": 0.1}
WIDE |= {"img_size": (16, 24), "patch_size": 4, "num_classes": 5}
#: Arguments of the network, and options of the scores.
FORMS = {
    "both positions": ({}, {}),
    "absolute positions": ({"relative_position": False}, {}),
    "relative positions": ({"position": "relative", "global_pool": "token"}, {}),
    "sines": ({"position": "sincos"}, {}),
    "clamped offsets": ({"max_relative_position": 2}, {}),
    "patches that leave a border": ({"img_size": (18, 23)}, {}),
    "micro-batches": ({}, {"unit": "microbatch", "pieces": 4}),
    "running sums": ({}, {"gsnr_accumulate": True}),
}


def network(**arguments) -> AutoFormerViT:
    torch.manual_seed(0)
    return AutoFormerViT(**(WIDE | arguments))


def cards(monkeypatch, model: AutoFormerViT, **options) -> list[ScoreCard]:
    """Score cards of all proxies by hand and by autograd, in float64."""
    size = 8, 3, *model.patch_embed.img_size
    images, targets = torch.randn(size, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 5
    names = [name for name in list_proxies() if name != "reg_swap"]
    runs, run = [], Executor.forward
    monkeypatch.setattr(Executor, "forward", lambda self, x, **how: runs.append(len(x)) or run(self, x, **how))
    by_hand = score(model, images, targets, names, precision="float64", **options)
    count = len(runs)
    assert count
    monkeypatch.setattr(context, "follows", lambda *_: False)
    by_autograd = score(model, images, targets, names, precision="float64", **options)
    assert len(runs) == count
    return [by_hand, by_autograd]


def agree(by_hand: ScoreCard, by_autograd: ScoreCard, tolerance: float = 1e-9) -> None:
    assert by_hand.axes == by_autograd.axes
    for name, expected in by_autograd.scores.items():
        found = by_hand.scores[name]
        assert found.reason == expected.reason, name
        assert found.value == pytest.approx(expected.value, rel=tolerance, nan_ok=True), name
        assert found.components.keys() == expected.components.keys()
        for key, numbers in expected.components.items():
            np.testing.assert_allclose(found.components[key], numbers, rtol=tolerance, err_msg=f"{name} {key}")


@pytest.mark.parametrize("form", FORMS)
def test_scores_are_those_of_autograd(form, monkeypatch):
    arguments, options = FORMS[form]
    agree(*cards(monkeypatch, network(**arguments), **options))


def test_a_batch_in_parts(monkeypatch):
    """As where memory holds no more."""
    slices = Context.slices
    monkeypatch.setattr(Context, "slices", lambda self, count, parts=None: slices(self, count, parts or 3))
    agree(*cards(monkeypatch, network()))


def test_the_published_networks(monkeypatch):
    space = make_space({"family": "autoformer", "preset": "digits"}, 8, 3, 5)
    agree(*cards(monkeypatch, build(space, space.sample(np.random.default_rng(0)), 1)))


@pytest.mark.parametrize("options", [{"window": (0.2, 0.8)}, {"features": ("blocks.0", "norm")}], ids=str)
def test_some_options_leave_it_to_autograd(options, monkeypatch):
    monkeypatch.setattr(Executor, "forward", None)
    card = score(network(), torch.randn(4, 3, 16, 24), torch.arange(4), ["lswag"], **options)
    assert np.isfinite(card["lswag"])


def changed(change: Callable[[AutoFormerViT], object], **arguments) -> AutoFormerViT:
    model = network(**arguments)
    change(model)
    return model


class Twice(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


CHANGES = {
    "a hook": lambda model: model.blocks[1].mlp.fc1.register_forward_hook(lambda *_: None),
    "a hook before": lambda model: model.register_forward_pre_hook(lambda *_: None),
    "another forward": lambda model: setattr(model.norm, "forward", lambda x: x),
    "another layer": lambda model: setattr(model.blocks[0].attn, "proj", Twice(16, 24)),
    "another part": lambda model: setattr(model.blocks[0], "mlp", nn.Linear(24, 24)),
    "another activation": lambda model: setattr(model.blocks[0].mlp, "act", nn.GELU("tanh")),
    "no head": lambda model: model.reset_classifier(0),
    "a shared weight": lambda model: setattr(model.blocks[0].norm1, "weight", model.blocks[1].norm1.weight),
    "a computed weight": lambda model: parametrizations.weight_norm(model.head),
    "checkpoints": lambda model: model.set_grad_checkpointing(True),
    "a norm without weights": lambda model: setattr(model, "norm", nn.LayerNorm(24, elementwise_affine=False)),
    "a shared block": lambda model: model.blocks.__setitem__(1, model.blocks[0]),
    "a shared activation": lambda model: setattr(model.blocks[0].mlp, "act", model.blocks[1].mlp.act),
    "a norm for an activation": lambda model: setattr(model.blocks[0].mlp, "act", nn.LayerNorm(48)),
    "a norm in a branch": lambda model: setattr(model.blocks[0], "drop_path1", nn.LayerNorm(24)),
    "a scale": lambda model: setattr(model.blocks[0], "ls1", nn.LayerNorm(24)),
    "a head of two": lambda model: setattr(model, "head", nn.Sequential(nn.LayerNorm(24), nn.Linear(24, 5))),
    "nested blocks": lambda model: setattr(model, "blocks", nn.Sequential(nn.Sequential(*model.blocks))),
    "no positions of values": lambda model: setattr(model.blocks[0].attn, "rel_pos_values", None),
    "another pooling": lambda model: setattr(model, "forward_head", lambda x: model.head(x.amax(1))),
    "named features": lambda model: setattr(model, "features", ("norm",)),
    "another dilation": lambda model: setattr(model.patch_embed.proj, "dilation", (2, 2)),
    "another stride": lambda model: setattr(model.patch_embed.proj, "stride", (2, 2)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_networks_are_run_by_autograd(change):
    assert not follows(changed(CHANGES[change]))


def test_changed_classes_and_global_hooks_are_seen(monkeypatch):
    model = network()
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    assert not follows(model)
    handle.remove()
    assert follows(model)
    monkeypatch.setattr(Attention, "forward", lambda self, x: x)
    assert not follows(model)


def test_images_of_another_size_are_refused():
    with pytest.raises(AssertionError, match="the images must be 16 pixels high"):
        score(network(), torch.randn(4, 3, 20, 30), torch.arange(4), ["lswag"])


def test_nothing_is_kept_for_a_run_forwards():
    model = network()
    run = Executor(
        model, dict(model.state_dict(keep_vars=True)) | dict(model.named_buffers()), Recorder(examine(model))
    )
    with torch.no_grad():
        logits = run.forward(torch.ones(2, 3, 16, 24), keep=False)
        torch.testing.assert_close(logits, model(torch.ones(2, 3, 16, 24)))
    assert run.blocks == [None] * 3


@pytest.mark.parametrize(
    "arguments", [{"stem": "conv"}, {"mlp": "swiglu"}, {"qk_norm": True}, {"layer_scale": True}], ids=str
)
def test_other_networks_are_run_by_autograd(arguments):
    assert not follows(network(**arguments))
    assert follows(network())
