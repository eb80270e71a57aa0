"""The engine against a slow reference (``reference.py``) on random networks of many kinds."""

import copy
import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from libranas import engine, probe
from libranas.errors import LibranasError
from libranas.nets import build
from libranas.proxies.activation import window_unions
from libranas.proxies.base import Activation, pack_bits
from libranas.spaces import AutoFormerSpace

_spec = importlib.util.spec_from_file_location("reference", Path(__file__).with_name("reference.py"))
reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reference)

CLASSES = 4
few = settings(max_examples=40, deadline=None, derandomize=True)
options_ = st.fixed_dictionaries(
    {
        "zico_variance": st.sampled_from(["signed", "abs"]),
        "lambda_variance": st.sampled_from(["signed", "abs"]),
        "psi_samples": st.sampled_from([None, 2]),
        "synflow_ln": st.sampled_from(["keep", "identity"]),
    }
)


def compare(net, inputs, targets, **options):
    """Every value and component that the reference has, to nine digits."""
    want, parts = reference.score(net, inputs, targets, seed=5, **options)
    card = engine.score(net, inputs, targets, seed=5, precision="float64", **options)
    for name, value in want.items():
        assert card[name] == pytest.approx(value, rel=1e-9, abs=1e-12, nan_ok=True), name
    for (name, component), values in parts.items():
        if name in want:
            got = card.scores[name].components[component]
            np.testing.assert_allclose(got, np.asarray(values, float), rtol=1e-8, atol=1e-14, err_msg=name)
    return card


def batch(size: int, *shape: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, *shape, generator=generator), torch.arange(size) % CLASSES


def seeded(make, seed: int):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


# -- networks ------------------------------------------------------------------------------------------------


@st.composite
def mlps(draw):
    widths = draw(st.lists(st.integers(2, 7), min_size=1, max_size=3))
    channels, size = draw(st.integers(1, 3)), draw(st.integers(1, 3))

    def make():
        steps, before = [nn.Flatten()], channels * size * size
        for width in widths:
            steps.append(nn.Linear(before, width, bias=draw(st.booleans())))
            if draw(st.booleans()):
                steps.append(nn.LayerNorm(width))
            steps.append(draw(st.sampled_from([nn.ReLU(), nn.ReLU(inplace=True), nn.GELU()])))
            before = width
        return nn.Sequential(*steps, nn.Linear(before, CLASSES))

    return seeded(make, draw(st.integers(0, 99))), (channels, size, size)


@st.composite
def cnns(draw, norms=("none", "group")):
    """Convolutions with any stride, group, dilation, kernel and padding; about 8 pixels a side."""
    channels = draw(st.sampled_from([1, 2, 3]))
    height, width = draw(st.integers(6, 9)), draw(st.integers(6, 9))

    def make():
        steps, before, h, w = [], channels, height, width
        for _ in range(draw(st.integers(1, 3))):
            groups = draw(st.sampled_from([g for g in (1, 2, 3) if before % g == 0]))
            out = groups * draw(st.integers(1, 2))
            kernel = draw(st.sampled_from([(1, 1), (3, 3), (2, 3), (1, 3)]))
            stride, dilation = draw(st.sampled_from([1, 1, 2, (2, 1)])), draw(st.sampled_from([1, 1, 2]))
            mode = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
            most = min(h, w) - 1
            padding = draw(st.sampled_from(["same", 0, 1, (1, 2)] if stride == 1 else [0, 1, (1, 2)]))
            reach = dilation * (max(kernel) - 1)
            if padding == 0 and reach >= min(h, w):
                padding = 1
            if most < 2 or reach >= min(h, w) + 2:
                kernel, dilation, padding = (1, 1), 1, 0
            conv = nn.Conv2d(
                before,
                out,
                kernel,
                stride,
                padding,
                dilation,
                groups,
                bias=draw(st.booleans()),
                padding_mode=mode,
            )
            steps.append(conv)
            kind = draw(st.sampled_from(norms))
            if kind == "batch":
                steps.append(nn.BatchNorm2d(out))
            elif kind == "group":
                steps.append(nn.GroupNorm(1, out))
            steps.append(draw(st.sampled_from([nn.ReLU(), nn.ReLU(inplace=True), nn.GELU()])))
            before = out
            with torch.no_grad():
                h, w = nn.Sequential(*steps).eval()(torch.zeros(1, channels, height, width)).shape[-2:]
        return nn.Sequential(*steps, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, CLASSES)).train()

    return seeded(make, draw(st.integers(0, 99))), (channels, height, width)


@st.composite
def vits(draw):
    depth = draw(st.integers(1, 2))
    space = AutoFormerSpace(
        embed_dim=(6, 8),
        depth=(1, 2),
        num_heads=(1, 2),
        mlp_ratio=(1.5, 2.0),
        head_dim=4,
        image_size=draw(st.sampled_from([4, 6])),
        patch_size=2,
        channels=draw(st.sampled_from([1, 3])),
        classes=CLASSES,
        relative_position=draw(st.booleans()),
        max_relative_position=1,
    )
    genes = (draw(st.lists(st.sampled_from(c), min_size=depth, max_size=depth)) for c in ((1, 2), (1.5, 2.0)))
    arch = space.arch(draw(st.sampled_from([6, 8])), *genes)
    return build(space, arch, draw(st.integers(0, 99))), (space.channels, space.image_size, space.image_size)


# -- the engine ----------------------------------------------------------------------------------------------


@few
@given(mlps(), st.sampled_from([3, 5]), options_)
def test_mlps(drawn, size, options):
    net, shape = drawn
    compare(net, *batch(size, *shape), unit="sample", **options)


@few
@given(cnns(), st.sampled_from([("sample", 2, 3), ("microbatch", 3, 6), ("auto", 2, 5)]), options_)
def test_cnns(drawn, unit, options):
    net, shape = drawn
    compare(net, *batch(unit[2], *shape), unit=unit[0], pieces=unit[1], **options)


@few
@given(
    cnns(norms=("batch", "batch", "none")),
    st.sampled_from([("auto", "auto"), ("auto", "eval"), ("sample", "train"), ("microbatch", "eval")]),
    options_,
)
def test_cnns_with_batch_norm(drawn, how, options):
    net, shape = drawn
    if how[0] == "sample":  # a batch norm needs more than one value a channel
        x = torch.zeros(1, *shape)
        for step in copy.deepcopy(net).eval():
            assume(not isinstance(step, nn.BatchNorm2d) or x[0, 0].numel() > 1)
            x = step(x)
    compare(net, *batch(6, *shape), unit=how[0], mode=how[1], pieces=3, **options)


@few
@given(vits(), st.sampled_from([("sample", 2, 3), ("microbatch", 2, 6)]), options_)
def test_vits(drawn, unit, options):
    net, shape = drawn
    card = compare(net, *batch(unit[2], *shape), unit=unit[0], pieces=unit[1], **options)
    assert math.isfinite(card["az_expressivity"]) and math.isfinite(card["az_trainability"])


def test_one_dimensional_convolutions():
    for stride, padding, dilation, groups, mode in [
        (1, 1, 1, 1, "zeros"),
        (2, 2, 2, 2, "circular"),
        (1, "same", 2, 1, "reflect"),
    ]:
        net = seeded(
            lambda s=stride, p=padding, d=dilation, g=groups, m=mode: nn.Sequential(
                nn.Flatten(2),
                nn.Conv1d(2, 4, 3, s, p, d, g, padding_mode=m),
                nn.ReLU(),
                nn.AdaptiveAvgPool1d(2),
                nn.Flatten(),
                nn.Linear(8, CLASSES),
            ),
            1,
        )
        compare(net, *batch(3, 2, 3, 3))


def test_primary_blocks_that_halve_the_resolution():
    net = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(4, 5, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(5, 6, 3, stride=2, padding=1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, CLASSES),
        ),
        2,
    )
    card = compare(net, *batch(4, 3, 8, 8), features=("1", "3", "4"))
    assert math.isfinite(card["az_trainability"])


class UsedTwice(nn.Module):
    """One Linear and one ReLU that the data pass through twice."""

    def __init__(self):
        super().__init__()
        self.first, self.again, self.act = nn.Linear(6, 6), nn.Linear(6, 6), nn.ReLU()
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x):
        x = self.act(self.first(x.flatten(1)))
        return self.head(self.act(self.again(self.act(self.again(x)))))


class Tied(nn.Module):
    """Two modules with one weight; also on tokens, so that the positions of both uses add up."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.act, self.head = nn.Linear(3, 3), nn.Linear(3, 3), nn.GELU(), nn.Linear(3, CLASSES)
        self.b.weight = self.a.weight

    def forward(self, x):
        x = x.flatten(2).transpose(1, 2)
        return self.head(self.b(self.act(self.a(x))).mean(1))


@pytest.mark.parametrize("unit", ["sample", "microbatch"])
def test_shared_weights_are_one_layer(unit):
    x, y = batch(6, 1, 2, 3)
    net = seeded(UsedTwice, 3)
    card = compare(net, x, y, unit=unit, pieces=3)
    assert card.axes["layer"].names == ("first", "again", "head")
    assert card.axes["activation"].names == ("act", "act#2", "act#3")
    tied = seeded(Tied, 4)
    card = compare(tied, *batch(6, 3, 2, 2), unit=unit, pieces=3)
    assert card.axes["layer"].names == ("a", "head")
    assert tied.a.weight is tied.b.weight


def test_dead_and_constant_weights_are_left_out():
    net = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, CLASSES)), 5)
    with torch.no_grad():
        net[1].bias[:4] = -100.0  # four of six units never fire: their weights have no gradient
    card = compare(net, *batch(5, 1, 2, 2))
    assert card.scores["lswag_lambda"].components["dropped"].tolist() == [16, 16]


def test_an_input_changed_in_place_is_an_error():
    class Spoils(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, CLASSES)

        def forward(self, x):
            x = x.flatten(1) * 1
            y = self.a(x)
            x.add_(1)
            return self.b(y + x)

    with pytest.raises(LibranasError, match="input of layer a was changed in place"):
        engine.score(Spoils(), *batch(3, 1, 2, 2), ["snip"])


def test_a_layer_whose_rows_are_no_samples_is_an_error_and_not_a_wrong_number():
    class Mixes(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, CLASSES)

        def forward(self, x):
            return self.b(self.a(x.flatten(1).mean(0, keepdim=True)) + x.flatten(1))

    with pytest.raises(LibranasError, match="Layer a got an input with 1 rows"):
        engine.score(Mixes(), *batch(3, 1, 2, 2), ["zico"])


# -- patterns ------------------------------------------------------------------------------------------------


@few
@given(st.integers(1, 130), st.integers(1, 40), st.integers(0, 10**6))
def test_packed_words_are_exact(samples, units, seed):
    rng = np.random.default_rng(seed)
    kinds = rng.random((samples, 6)) < 0.5
    bits = torch.from_numpy(kinds[:, rng.integers(0, 6, units)])  # few kinds, so that patterns repeat
    words = pack_bits(bits)
    assert words.dtype == torch.int64 and words.shape == (units, math.ceil(samples / 64))
    for v in range(units):
        unpacked = [(int(words[v, s // 64]) >> (s % 64)) & 1 for s in range(samples)]
        assert unpacked == bits[:, v].long().tolist()
    assert len(Activation(bits).patterns()) == len({tuple(c) for c in bits.T.tolist()})
    first = max(1, samples // 2)
    assert len(Activation(bits).patterns(first)) == len({tuple(c) for c in bits[:first].T.tolist()})


@pytest.mark.parametrize("samples", [63, 64, 65, 128, 129])
def test_the_last_sample_of_a_word_counts(samples):
    bits = torch.zeros(samples, 3, dtype=torch.bool)
    bits[-1, 1] = True
    bits[0, 2] = True
    assert len(Activation(bits).patterns()) == 3


@few
@given(st.lists(st.sets(st.integers(-4, 4), min_size=1), min_size=1, max_size=6), st.booleans())
def test_window_unions(sets, wide):
    tensors = [torch.tensor(sorted(s)) for s in sets]
    if wide:  # more than 64 samples: several words a pattern
        tensors = [torch.stack([t, -t * t], 1) for t in tensors]
    np.testing.assert_array_equal(window_unions(tensors), reference.unions(sets))


# -- moments -------------------------------------------------------------------------------------------------


@few
@given(st.integers(1, 9), st.integers(1, 9), st.floats(0, 1e6), st.booleans(), st.booleans())
def test_moments_do_not_depend_on_how_units_are_cut(units, piece, offset, signed, absolute):
    g = torch.randn(units, 2, 3, generator=torch.Generator().manual_seed(units), dtype=torch.float64) + offset
    moments = probe.Moments(signed, absolute)
    for start in range(0, units, piece):
        moments.add(g[start : start + piece])
    assert moments.units == units
    torch.testing.assert_close(moments.mean_OI, g.mean(0))
    if signed:
        torch.testing.assert_close(moments.m2_OI, g.var(0, unbiased=False) * units, rtol=1e-6, atol=1e-8)
    if absolute:
        torch.testing.assert_close(moments.abs_m2_OI, g.abs().var(0, unbiased=False) * units, rtol=1e-6, atol=1e-8)
    if signed or absolute:
        torch.testing.assert_close(moments.abs_mean_OI, g.abs().mean(0))
