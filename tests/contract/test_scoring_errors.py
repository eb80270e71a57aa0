"""Batches and networks that cannot be scored: what the error says, and that its advice works."""

import math
import re

import pytest
import torch
from torch import nn

from libranas.core.errors import LibranasError
from libranas.networks.load import checked_outputs
from libranas.zero_cost import score as engine


def net(*layers) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), *layers, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 4)
        )


@pytest.fixture(scope="module")
def batch():
    return torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 4


def values(model, inputs, targets, names=("snip", "zico", "epe_nas", "ntk_cond"), **options):
    card = engine.score(model, inputs, targets, names, **options)
    assert all(math.isfinite(card[name]) for name in names), card.scores
    return [card[name] for name in names]


# -- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [torch.int32, torch.uint8, torch.int16])
def test_classes_of_any_integer_type(batch, kind):
    assert values(net(), batch[0], batch[1].to(kind)) == values(net(), *batch)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_a_network_and_images_of_another_precision(batch, kind):
    model = net().to(kind)
    assert values(model, batch[0].to(kind), batch[1]) == values(model.float(), batch[0].to(kind).float(), batch[1])
    assert checked_outputs(net().to(kind), batch[0][:2], "mine.py:build", 4) == 4


class Compiled(nn.Module):
    """As torch.compile wraps a network."""

    def __init__(self, model):
        super().__init__()
        self._orig_mod = model


@pytest.mark.parametrize("wrap", [nn.DataParallel, Compiled])
def test_a_wrapper_is_taken_off(batch, wrap):
    card, plain = (engine.score(m, *batch, ["snip", "zico"]) for m in (wrap(net()), net()))
    assert card.axes == plain.axes and card.excluded == plain.excluded and card["zico"] == plain["zico"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x, y + 1), "A target is class 4, but the network has 4 outputs"),
        (lambda x, y: (x, y - 1), "classes, integers from 0.*smallest -1"),
        (lambda x, y: (x, y.float()), "classes, integers from 0.*float32"),
        (lambda x, y: (x[:0], y[:0]), r"cannot be scored: inputs torch.float32 \(0, 1, 8, 8\)"),
        (lambda x, y: (x.to(torch.uint8), y), "cannot be scored: inputs torch.uint8"),
        (lambda x, y: (x, nn.functional.one_hot(y)), r"cannot be scored.*targets torch.int64 \(8, 4\)"),
    ],
)
def test_a_batch_that_makes_no_sense(batch, change, message):
    for names in (["zico"], ["jacov"], ["params"]):
        with pytest.raises(LibranasError, match=message):
            engine.score(net(), *change(*batch), names)


@pytest.mark.parametrize(
    "outputs", [lambda x: (x, x), lambda x: x[:, :, None], lambda x: x[0], lambda x: {"logits": x}]
)
def test_a_network_without_logits(batch, outputs):
    model = net()
    model.register_forward_hook(lambda module, args, x: outputs(x))
    with pytest.raises(LibranasError, match=r"The network returns .*expected are logits of shape \(B, K\)"):
        engine.score(model, *batch, ["snip"])
    with pytest.raises(LibranasError, match="no parameters"):
        engine.score(nn.Flatten(), *batch, ["snip"])


# -- advice ----------------------------------------------------------------------------------------------------------


class Spoils(nn.Module):
    def __init__(self, inplace: bool):
        super().__init__()
        self.first, self.head, self.inplace = nn.Linear(64, 64), nn.Linear(64, 4), inplace

    def forward(self, x):
        x = x.flatten(1) * 1
        y = self.first(x)
        return self.head(y + (x.relu_() if self.inplace else x.relu()))


def larger(batch, factor: int):
    return batch[0].repeat_interleave(factor, 2).repeat_interleave(factor, 3), batch[1]


BN, ONE_PIXEL = nn.BatchNorm2d(4), nn.MaxPool2d(6)
#: What goes wrong (network, batch, options), the words of the message, and all ways out that it names.
ADVICE = {
    "pieces": (
        lambda b: (net(BN), b[0][:6], b[1][:6], {}),
        "Choose a batch size that the option pieces divides, or other pieces",
        [lambda b: (net(BN), *b, {}), lambda b: (net(BN), b[0][:6], b[1][:6], {"pieces": 6})],
    ),
    "one value a channel": (
        lambda b: (net(ONE_PIXEL, BN), *b, {}),
        r"larger images, a larger batch or fewer micro-batches \(pieces\), or mode='eval'",
        [
            lambda b: (net(ONE_PIXEL, BN), *larger(b, 2), {}),
            lambda b: (net(ONE_PIXEL, BN), b[0].repeat(2, 1, 1, 1), b[1].repeat(2), {}),
            lambda b: (net(ONE_PIXEL, BN), *b, {"pieces": 4}),
            lambda b: (net(ONE_PIXEL, BN), *b, {"mode": "eval"}),
        ],
    ),
    "in place": (
        lambda b: (Spoils(True), *b, {}),
        r"input of layer first was changed in place.*\n.*inplace=False",
        [lambda b: (Spoils(False), *b, {})],
    ),
    "classes": (
        lambda b: (net(), b[0], b[1] + 1, {}),
        "Number the classes from 0, and make the network for all of them",
        [lambda b: (net(), *b, {}), lambda b: (net().append(nn.Linear(4, 5)), b[0], b[1] + 1, {})],
    ),
    "features": (
        lambda b: (net(), *b, {"features": ("conv",)}),
        r"no module is called conv.*\n.*named_modules\(\)",
        [lambda b: (net(), *b, {"features": ("0",)})],
    ),
}


@pytest.mark.parametrize("kind", ADVICE)
def test_what_an_error_advises_works(batch, kind):
    wrong, words, ways = ADVICE[kind]
    *arguments, options = wrong(batch)
    with pytest.raises(LibranasError, match=words):
        engine.score(*arguments, ["snip", "zico"], **options)
    for way in ways:
        *arguments, options = way(batch)
        values(*arguments, ["snip", "zico"], **options)


@pytest.mark.parametrize(
    ("name", "wrong", "reason", "right"),
    [
        ("zico", lambda b: (b[0][:3], b[1][:3], {}), "give 4", lambda b: (b[0][:4], b[1][:4], {})),
        ("epe_nas", lambda b: (b[0][:4], b[1][:4], {}), "use a class-balanced one", lambda b: (*b, {})),
        ("reg_swap", lambda b: (*b, {}), r"reg_swap=\(mu, sigma\)", lambda b: (*b, {"reg_swap": (1.0, 1.0)})),
        ("zen", lambda b: (*b, {}), "option `features`", lambda b: (*b, {"features": ("0", "1")})),
        ("az_trainability", lambda b: (*b, {}), "option `features`", lambda b: (*b, {"features": ("0", "2")})),
    ],
)
def test_what_a_reason_advises_works(batch, name, wrong, reason, right):
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.Flatten())
    model.append(nn.Linear(256, 4))
    *arguments, options = wrong(batch)
    score = engine.score(model, *arguments, [name], **options).scores[name]
    assert math.isnan(score.value)
    assert re.search(reason, score.reason)
    *arguments, options = right(batch)
    values(model, *arguments, [name], **options)


def test_few_units_are_allowed_by_the_option_that_the_error_names(batch):
    with pytest.raises(ValueError, match="few_units allows it"):
        values(net(BN), *batch, ["zico"], pieces=2)
    values(net(BN), *batch, ["zico"], pieces=2, few_units=True)
