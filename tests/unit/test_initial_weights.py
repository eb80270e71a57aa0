"""Initial weights: counter-based numbers, a function of seed, name and place alone."""

import hashlib
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from libranas.core.random import random_words
from libranas.networks import build, initial_weights
from libranas.networks.initial_weights import Draw, initialise, uniform, usual, words_on
from libranas.spaces import make_space

MASK = 2**64 - 1


def philox_block(counter: int, key: int) -> list[int]:
    """Four words of Philox 4x64-10, from the paper's description."""
    x = [counter >> 64 * i & MASK for i in range(4)]
    k0, k1 = key & MASK, key >> 64
    for _ in range(10):
        a, b = 0xD2E7470EE14C6C93 * x[0], 0xCA5A826395121157 * x[2]
        x = [b >> 64 ^ x[1] ^ k0, b & MASK, a >> 64 ^ x[3] ^ k1, a & MASK]
        k0, k1 = k0 + 0x9E3779B97F4A7C15 & MASK, k1 + 0xBB67AE8584CAA73B & MASK
    return x


def test_words_are_those_of_the_definition():
    key = int.from_bytes(hashlib.sha256(b"7/a/1").digest()[:16], "little")
    expected = [word for block in range(1, 6) for word in philox_block(block, key)]
    assert random_words(18, 7, "a", 1).tolist() == expected[:18]


@pytest.mark.parametrize("count", [1, 4, 1003])
def test_words_are_the_same_on_every_device(count):
    """By the generator that other devices use, run here; it carries in products of all sizes."""
    made = words_on(torch.device("cpu"), count, 7, "a").numpy()
    np.testing.assert_array_equal(made.view(np.uint64), random_words(count, 7, "a"))


def test_uniform_numbers_take_both_halves_of_a_word():
    words, numbers = random_words(3, 5, "w"), uniform(5, "w", 5)
    halves = [half for word in words.tolist() for half in (word & 0xFFFFFFFF, word >> 32)][:5]
    signed = [half - 2**32 if half >= 2**31 else half for half in halves]
    assert numbers.tolist() == [(s + 0.5) / 2**31 for s in signed]


@pytest.mark.parametrize("kind, limit", [("uniform", stats.uniform(-0.3, 0.6)), ("normal", stats.norm(0, 0.3))])
def test_distributions(kind, limit):
    layer = nn.Linear(200, 100)
    torch.manual_seed(0)
    initialise(layer, lambda module, key: Draw(kind, 0.3))
    assert stats.kstest(layer.weight.detach().numpy().ravel(), limit.cdf).pvalue > 0.01
    assert len(np.unique(layer.weight.detach())) > 19_990  # float32 has some equal ones


def test_weights_depend_on_the_seed_and_their_name_alone():
    def weights(model, seed):
        torch.manual_seed(seed)
        initialise(model)
        return dict(model.named_parameters())

    small = nn.Sequential(nn.Linear(4, 4))
    large = nn.Sequential(nn.Linear(4, 4), nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8))
    a, b, c = weights(small, 0), weights(large, 0), weights(nn.Sequential(nn.Linear(4, 4)), 1)
    assert torch.equal(a["0.weight"], b["0.weight"]) and not torch.equal(a["0.weight"], c["0.weight"])
    assert not torch.equal(b["0.weight"].flatten()[:4], b["0.bias"])
    assert (b["2.weight"] == 1).all()


@pytest.mark.parametrize(
    "settings, side",
    [
        ({"family": "autoformer", "preset": "digits-autoformer"}, 8),
        (
            {"family": "autoformer", "preset": "image32", "position": "relative", "mlp": "swiglu", "layer_scale": True},
            32,
        ),
        ({"family": "pit"}, 32),
        ({"family": "nasbench201"}, 32),
        ({"family": "nasbench101"}, 32),
        ({"family": "nasbench101", "port_init": True}, 32),
        ({"family": "transnas101"}, 32),
        ({"family": "transnas101", "level": "macro", "published_init": True}, 32),
        ({"family": "darts", "width": 12, "layers": 4}, 32),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_every_random_weight_is_drawn(settings, side, monkeypatch):
    """Whatever PyTorch's generator and functions do, in the constructor or not, the weights are the same."""
    space = make_space(settings, side, 3, 10)
    arch = space.extremes()[0]
    expected = build(space, arch, 3).state_dict()
    before = torch.get_rng_state()
    monkeypatch.setattr(initial_weights, "_WithoutUsualDraws", nullcontext)
    for function in ("uniform_", "normal_"):
        monkeypatch.setattr(torch.Tensor, function, lambda tensor, *args, **kwargs: tensor.fill_(0.1))
    found = build(space, arch, 3).state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert torch.equal(torch.get_rng_state(), before)
    elsewhere = build(space, arch, 3, device="meta")  # a device on which no value can be looked at
    assert {tensor.device.type for tensor in (*elsewhere.parameters(), *elsewhere.buffers())} == {"meta"}


@pytest.mark.parametrize("layer", [nn.Linear(96, 500), nn.Conv2d(32, 64, 3), nn.Conv2d(32, 64, 3, groups=4)], ids=repr)
def test_usual_distributions_are_those_of_pytorch(layer):
    torch.manual_seed(0)
    layer.reset_parameters()
    bound = usual(layer, "weight").scale
    for tensor in (layer.weight, layer.bias):
        assert 0.95 * bound < tensor.abs().max() <= bound
