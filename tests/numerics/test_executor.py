"""AutoFormer networks by hand against the same networks by autograd."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from libranas.core.scorecard import ScoreCard
from libranas.networks import build
from libranas.networks.autoformer import AutoFormerViT
from libranas.spaces import make_space
from libranas.zero_cost.executor import Executor, follows
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
    monkeypatch.setattr(Executor, "forward", lambda self, x: runs.append(len(x)) or run(self, x))
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
    "another stride": lambda model: setattr(model.patch_embed.proj, "stride", (2, 2)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_networks_are_run_by_autograd(change):
    model = changed(CHANGES[change])
    assert not follows(model, model.modules())


@pytest.mark.parametrize(
    "arguments", [{"stem": "conv"}, {"mlp": "swiglu"}, {"qk_norm": True}, {"layer_scale": True}], ids=str
)
def test_other_networks_are_run_by_autograd(arguments):
    model = network(**arguments)
    assert not follows(model, model.modules())
    assert follows(network(), network().modules())
