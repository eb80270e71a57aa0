"""Networks on which hooks, modes and shared modules could go wrong in silence."""

import math

import pytest
import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import nn

from libranas.zero_cost import score as engine
from libranas.zero_cost.gradient_operands import LAYER_RULES


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 1, 4, 4, generator=generator), torch.arange(8) % 3


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return make()


def score(net, batch, names, **options):
    return engine.score(net, *batch, names, precision="float64", **options)


def test_images_that_want_a_gradient_change_nothing(batch):
    net = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3)))
    inputs = batch[0].clone().requires_grad_()
    names = ["snip", "zico", "jacov", "ntk_cond", "grasp"]
    card, plain = score(net, (inputs, batch[1]), names), score(net, batch, names)
    assert [card[n] for n in names] == [plain[n] for n in names]
    assert inputs.grad is None and inputs.requires_grad


def test_dropout_is_off_beside_batch_norm_in_training_mode(batch):
    net = seeded(lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5)))
    net.append(seeded(lambda: nn.Linear(16, 3)))
    found = []
    for state in (1, 2):
        torch.manual_seed(state)
        found.append(score(net, batch, ["snip", "zico"], pieces=4))
    assert found[0]["snip"] == found[1]["snip"] and found[0]["zico"] == found[1]["zico"]


class Rows(nn.Module):
    """A linear layer on four windows of each image: as tokens, or as rows of their own."""

    def __init__(self, apart: bool):
        super().__init__()
        self.apart, self.inner, self.head = apart, nn.Linear(4, 5), nn.Linear(20, 3)

    def forward(self, x):
        x = x.reshape(-1, 4) if self.apart else x.reshape(len(x), 4, 4)
        return self.head(self.inner(x).relu().reshape(-1, 20))


def test_windows_as_rows_are_of_their_image(batch):
    names = ["snip", "fisher", "zico", "lswag_lambda", "gradsign", "ntk_cond"]
    apart, together = (score(seeded(lambda a=a: Rows(a)), batch, names) for a in (True, False))
    for name in names:
        assert apart[name] == pytest.approx(together[name], rel=1e-12), name


def test_a_use_that_the_loss_does_not_reach_adds_nothing(batch):
    class Net(nn.Module):
        def __init__(self, aside: bool):
            super().__init__()
            self.aside, self.norm, self.a, self.b = aside, nn.LayerNorm(16), nn.Linear(16, 16), nn.Linear(16, 3)

        def forward(self, x):
            x = self.norm(x.flatten(1))
            y = self.a(x)
            if self.aside:
                self.a(self.norm(y))
            return self.b(y)

    names = ["snip", "zico", "ntk_cond"]
    aside, without = (score(seeded(lambda a=a: Net(a)), batch, names) for a in (True, False))
    for name in names:
        assert aside[name] == pytest.approx(without[name], rel=1e-12), name


def test_batch_norm_without_running_statistics_couples_images_in_evaluation_mode_too(batch):
    def net():
        norm = nn.BatchNorm2d(4, track_running_stats=False)
        return nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))

    names = ["snip", "zico", "gradsign", "ntk_cond", "tcet"]
    cards = [score(seeded(net), batch, names, pieces=4, mode=mode) for mode in ("eval", "train")]
    for name in names:
        assert math.isfinite(cards[0][name]) and cards[0][name] == pytest.approx(cards[1][name], rel=1e-12), name


def test_a_batch_norm_under_two_names(batch):
    norm = nn.BatchNorm2d(4)
    net = seeded(lambda: nn.Sequential(nn.Conv2d(1, 4, 1), norm, nn.ReLU(), nn.Conv2d(4, 4, 1), norm, nn.Flatten()))
    net.append(seeded(lambda: nn.Linear(64, 3)))
    card = score(net, batch, ["snip", "zico", "synflow", "jacov"], pieces=4)
    assert all(math.isfinite(card[name]) for name in card.scores)


def test_a_norm_with_its_own_forward_is_in_the_tangent_kernel(batch):
    net = seeded(lambda: nn.Sequential(nn.Conv2d(1, 4, 3), LayerNorm2d(4), nn.GELU(), nn.Flatten(), nn.Linear(16, 3)))
    last = nn.GroupNorm(1, 4, eps=1e-6)  # the same of one pixel
    first = nn.Sequential(nn.Conv2d(1, 4, 4), LayerNorm2d(4), nn.Flatten(), nn.Linear(4, 3))
    other = nn.Sequential(first[0], last, *first[2:])
    assert math.isfinite(score(net, batch, ["ntk_cond"])["ntk_cond"])
    cards = [score(n, batch, ["ntk_cond"], ntk_images=4) for n in (first, other)]
    assert cards[0]["ntk_cond"] == pytest.approx(cards[1]["ntk_cond"], rel=1e-8)


class Attends(nn.Module):
    """Calls PyTorch's attention itself, without a switch."""

    def __init__(self):
        super().__init__()
        self.qkv, self.head = nn.Linear(4, 24), nn.Linear(8, 3)

    def forward(self, x):
        q, k, v = self.qkv(x.flatten(1, 2)).reshape(len(x), 4, 3, 1, 8).permute(2, 0, 3, 1, 4)
        return self.head(F.scaled_dot_product_attention(q, k, v)[:, 0].mean(1))


def test_fused_attention_that_no_switch_turns_off(batch):
    card = score(seeded(Attends), batch, ["grasp", "flops"])
    assert math.isfinite(card["grasp"])
    assert card["flops"] == 4 * 4 * 24 + 2 * 4 * 4 * 8 + 8 * 3


@pytest.mark.parametrize("name", ["snip", "zico", "synflow", "grasp", "fisher", "l2_norm"])
@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.InstanceNorm2d])
def test_a_window_without_layers_is_undefined(batch, name, norm):
    net = seeded(lambda: nn.Sequential(nn.Conv2d(1, 4, 3), norm(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)))
    found = score(net, batch, [name], pieces=4, window=(0.9, 1.0)).scores[name]
    assert math.isnan(found.value) and found.reason


def test_zen_sees_the_pooling_that_runs_last(batch):
    class Pools(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pool, self.gate, self.head = (
                nn.Conv2d(1, 4, 3, padding=1),
                nn.AdaptiveAvgPool2d(1),
                nn.Conv2d(4, 4, 1),
                nn.Linear(4, 3),
            )

        def forward(self, x):
            x = self.conv(x)
            x = x * self.gate(self.pool(x)).sigmoid()
            return self.head(self.pool(x).flatten(1))

    small = score(seeded(Pools), batch, ["zen"], zen_repeats=1)["zen"]
    # 4 channels of 16 pixels that move by about a hundredth of N(0, 9) each.
    assert small < math.log(4 * 16 * 0.1)


def test_the_callers_matmul_precision_comes_back(batch):
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        score(seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 3))), batch, ["snip"])
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_new_type_of_layer_is_one_entry(batch, monkeypatch):
    class Dense(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.weight = nn.Linear(inputs, outputs, bias=False).weight

        def forward(self, x):
            return F.linear(x, self.weight)

    names = ["snip", "zico", "fisher", "tcet", "synflow", "ntk_cond", "flops"]
    nets = [lambda: Dense(16, 3), lambda: nn.Linear(16, 3, bias=False)]
    nets = [seeded(lambda make=make: nn.Sequential(nn.Flatten(), make())) for make in nets]
    without, plain = (score(net, batch, names) for net in nets)
    for name in names:
        assert without[name] == pytest.approx(plain[name], rel=1e-9, nan_ok=True), name
    monkeypatch.setitem(LAYER_RULES, Dense, LAYER_RULES[nn.Linear])
    cards = [score(net, batch, names) for net in nets]
    for name in names:
        assert cards[0][name] == pytest.approx(cards[1][name], rel=0, nan_ok=True), name
