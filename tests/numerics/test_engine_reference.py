"""The engine against a slow reference (``reference.py``) on random networks of many kinds."""

import copy
import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st
from torch import nn

from libranas.core.errors import LibranasError
from libranas.networks import build
from libranas.spaces import AutoFormerSpace, PiTSpace
from libranas.zero_cost import registry as registry
from libranas.zero_cost import score as engine
from libranas.zero_cost.captures import Activation, pack_bits
from libranas.zero_cost.gradient_moments import Moments, Wanted
from libranas.zero_cost.proxies.patterns import window_unions

_spec = importlib.util.spec_from_file_location("reference", Path(__file__).with_name("reference.py"))
reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reference)

CLASSES = 4
few = settings(derandomize=True)
#: Every option that the reference has; the unit and the mode belong to the tests.
options_ = st.fixed_dictionaries(
    {
        "lambda_variance": st.sampled_from(["signed", "abs"]),
        "lambda_ddof": st.sampled_from([0, 1]),
        "lambda_exclude": st.sampled_from([(), ("first",), ("last",)]),
        "lambda_pool": st.sampled_from(["layer", "block"]),
        "zico_variance": st.sampled_from(["signed", "abs"]),
        "gsnr_accumulate": st.booleans(),
        "gradsign": st.sampled_from(["sum", "mean"]),
        "fisher_axis": st.sampled_from(["channel", "token"]),
        "fisher_fan_in": st.booleans(),
        "psi_samples": st.sampled_from([None, 2]),
        "psi_merge": st.sampled_from(["union", "sum", "log_sum"]),
        "lswag_form": st.sampled_from(["product", "log", "per_layer"]),
        "reg_swap": st.sampled_from([None, (0.1, 2.0)]),
        "tcet_saliency": st.sampled_from(["snip", "synflow"]),
        "ntk_images": st.sampled_from([None, 2]),
        "meco_modules": st.sampled_from(["leaves", "all"]),
        "zen_repeats": st.sampled_from([1, 2]),
        "synflow_ln": st.sampled_from(["keep", "identity"]),
        "noise_batch": st.sampled_from([None, 2]),
    }
)


def compare(net, inputs, targets, **options):
    """Every value and component that the reference has, to nine digits."""
    options = {"few_units": True, "zen_repeats": 2} | options
    want, parts = reference.score(net, inputs, targets, seed=5, **options)
    card = engine.score(net, inputs, targets, seed=5, precision="float64", **options)
    for name, value in want.items():
        if name == "ntk_cond" and not value < 1e12:  # the smallest eigenvalue is rounding noise
            assert not card[name] < 1e11
            continue
        if name == "synflow" and value < -25:  # no signal at all but rounding
            assert card[name] < -25 or math.isnan(card[name])
            continue
        # An eigenvalue is exact to a fraction of the largest one, not of itself.
        rel = {"ntk_cond": 1e-9 + 1e-14 * value, "jacov": 1e-8}.get(name, 1e-9)
        assert card[name] == pytest.approx(value, rel=rel, abs=1e-12, nan_ok=True), name
        assert math.isfinite(card[name]) or card.scores[name].reason, name
    for (name, component), values in parts.items():
        if math.isfinite(want.get(name, math.nan)):
            got = card.scores[name].components[component]
            np.testing.assert_allclose(
                got, np.asarray(values, float), rtol=1e-8, atol=1e-14, err_msg=f"{name}: {component}"
            )
    return card


def batch(size: int, *shape: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, *shape, generator=generator), torch.arange(size) % CLASSES


def seeded(make, seed: int):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def perceptron(seed: int) -> nn.Module:
    return seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, CLASSES)), seed)


# -- networks ------------------------------------------------------------------------------------------------


@st.composite
def mlps(draw):
    widths = draw(st.lists(st.integers(2, 7), min_size=1, max_size=3))
    channels, size = draw(st.integers(1, 3)), draw(st.integers(1, 3))

    def make():
        steps, before = [nn.Flatten()], channels * size * size
        for width in widths:
            steps.append(nn.Linear(before, width, bias=draw(st.booleans())))
            kind = draw(st.sampled_from(["none", "layer", "rms"]))
            if kind == "layer" and width > 2:  # of two it leaves the signs
                steps.append(nn.LayerNorm(width))
            elif kind == "rms":  # with its own epsilon the gradient through it may be nothing but rounding
                steps.append(nn.RMSNorm(width, eps=1e-5))
            steps.append(draw(st.sampled_from([nn.ReLU(), nn.ReLU(inplace=True), nn.GELU()])))
            before = width
        return nn.Sequential(*steps, nn.Linear(before, CLASSES))

    return seeded(make, draw(st.integers(0, 99))), (channels, size, size)


@st.composite
def cnns(draw, norms=("none", "group", "groups")):
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
            shape = before, out, kernel, stride, padding, dilation, groups
            conv = nn.Conv2d(*shape, bias=draw(st.booleans()), padding_mode=mode)
            steps.append(conv)
            kind = draw(st.sampled_from(norms))
            if conv.weight[0].numel() == 1:  # a norm undoes its scale: the gradient is nothing but rounding
                kind = "none"
            if kind == "batch":
                steps.append(nn.BatchNorm2d(out))
            elif kind in ("group", "groups"):
                of = groups if kind == "groups" else 1
                if out > of:  # over one channel, the image of ones becomes zeros and its saliency rounding
                    steps.append(nn.GroupNorm(of, out))
            steps.append(draw(st.sampled_from([nn.ReLU(), nn.ReLU(inplace=True), nn.GELU()])))
            before = out
            try:
                with torch.no_grad():
                    h, w = nn.Sequential(*steps).eval()(torch.zeros(1, channels, height, width)).shape[-2:]
            except ValueError:  # a group norm over a single value
                reject()
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
        max_relative_position=1,
        pool=draw(st.sampled_from(["avg", "token"])),
        stem=draw(st.sampled_from(["linear", "conv"])),
        position=draw(st.sampled_from(["absolute", "relative", "both"])),
        mlp=draw(st.sampled_from(["gelu", "swiglu"])),
        qk_norm=draw(st.booleans()),
    )
    genes = (draw(st.lists(st.sampled_from(c), min_size=depth, max_size=depth)) for c in ((1, 2), (1.5, 2.0)))
    arch = space.arch(draw(st.sampled_from([6, 8])), *genes)
    return build(space, arch, draw(st.integers(0, 99))), (space.channels, space.image_size, space.image_size)


@st.composite
def pits(draw):
    """Feature maps of 5, 3 and 2 or of 4, 2 and 1 pixels a side; heads, widths and depths of all sizes."""
    space = PiTSpace(
        base_dim=(3, 4),
        mlp_ratio=(1.5, 2.0),
        stage_depth=((1,), (1, 2), (1,)),
        num_heads=(1, 2),
        image_size=draw(st.sampled_from([5, 6])),
        patch_size=2,
        channels=draw(st.sampled_from([1, 3])),
        classes=CLASSES,
    )
    arch = space.sample(np.random.default_rng(draw(st.integers(0, 99))))
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


@few
@given(pits(), st.sampled_from([("sample", 2, 3), ("microbatch", 2, 6)]), options_)
def test_pits(drawn, unit, options):
    """Depthwise convolutions, a linear layer on the class token alone, blocks that pool tokens."""
    net, shape = drawn
    options["meco_modules"] = "leaves"  # stages hand on two tensors
    card = compare(net, *batch(unit[2], *shape), unit=unit[0], pieces=unit[1], **options)
    assert math.isfinite(card["az_expressivity"]) and math.isfinite(card["az_trainability"])


def test_one_dimensional_convolutions():
    for stride, padding, dilation, groups, mode in (
        (1, 1, 1, 1, "zeros"),
        (2, 2, 2, 2, "circular"),
        (1, "same", 2, 1, "reflect"),
    ):
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
    net = perceptron(5)
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
        engine.score(Spoils(), *batch(4, 1, 2, 2), ["snip"])


class Tokens(nn.Module):
    """Patches as tokens with looked-up positions, a class token that is a bare parameter, norms of every kind."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(2, 4, 2, 2)
        self.groups = nn.GroupNorm(2, 4)
        self.position = nn.Embedding(4, 4)
        self.cls = nn.Parameter(torch.randn(4))
        self.scale = nn.Parameter(torch.randn(4))
        self.rms, self.plain_rms, self.norm = nn.RMSNorm(4), nn.RMSNorm(4, elementwise_affine=False), nn.LayerNorm(4)
        self.fc1, self.act, self.fc2 = nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 4)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x):
        x = self.groups(self.patches(x)).flatten(2).transpose(1, 2)
        x = x + self.position(torch.arange(4, device=x.device))
        x = torch.cat([self.cls.expand(len(x), 1, 4), x], 1)
        x = x + self.scale * self.fc2(self.act(self.fc1(self.rms(x))))
        return self.head(self.norm(self.plain_rms(x)).mean(1))


@pytest.mark.parametrize("unit", ["sample", "microbatch"])
def test_norms_embeddings_and_bare_parameters(unit):
    net = seeded(Tokens, 6)
    with torch.no_grad():
        for norm in (net.groups, net.rms, net.norm):
            norm.weight.add_(torch.linspace(-0.3, 0.4, 4))  # so that a norm without its weight would show
    card = compare(net, *batch(6, 2, 4, 4), unit=unit, pieces=3, features=("rms", "norm"))
    assert card.axes["layer"].names == ("patches", "fc1", "fc2", "head")
    assert {"position.weight", "cls", "scale", "rms.weight", "groups.weight"} <= set(card.excluded)
    assert math.isfinite(card["ntk_cond"]) and math.isfinite(card["zen"])


@pytest.mark.parametrize("unit", ["sample", "auto"])
def test_one_image_of_one_channel(unit):
    """There is no variance; everything that needs none has its value. One weight alone is a layer as well."""
    net = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(1, 1, 1),
            nn.GELU(),
            nn.Conv2d(1, 2, 3, 2, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(2, 4),
        ),
        7,
    )
    card = compare(net, *batch(1, 1, 6, 6), unit=unit, features=("0", "2"))
    for name in ("zico", "gsnr", "lswag_lambda", "lswag"):
        assert math.isnan(card[name]) and card.scores[name].reason
    assert math.isnan(card["epe_nas"])
    for name in ("snip", "gradsign", "nwot", "lswag_psi", "jacov", "az_trainability", "tcet"):
        assert math.isfinite(card[name]), name
    assert card["ntk_cond"] == 1.0


def test_fewer_than_four_units_are_refused_where_a_variance_is_needed():
    card = engine.score(perceptron(8), *batch(3, 1, 2, 2))
    for name in ("zico", "gsnr", "lswag_lambda", "lswag"):
        assert math.isnan(card[name]) and "4" in card.scores[name].reason
    assert math.isfinite(card["snip"]) and math.isfinite(card["gradsign"])


def test_a_module_used_twice_has_two_feature_maps():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.act = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1), nn.ReLU()
            self.head = nn.Linear(2, CLASSES)

        def forward(self, x):
            return self.head(self.act(self.b(self.act(self.a(x)))).mean((2, 3)))

    for modules in ("leaves", "all"):
        compare(seeded(Twice, 9), *batch(4, 1, 6, 6), meco_modules=modules)


def test_what_a_plain_perceptron_does_not_have_is_undefined():
    net = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.Linear(6, CLASSES)), 10)
    card = compare(net, *batch(4, 1, 2, 2))
    absent = ("dss", "meco", "zen", "az_progressivity", "nwot", "swap", "reg_swap", "linear_regions", "lswag_psi")
    for name in absent:
        assert math.isnan(card[name]) and card.scores[name].reason, name


@pytest.mark.parametrize("classes", [100, 101])
def test_epe_nas_has_another_form_for_many_classes(classes):
    net = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.GELU(), nn.Linear(8, classes)), 11)
    inputs, _ = batch(7, 3, 2, 2)
    compare(net, inputs, torch.tensor([0, 0, 5, 5, 5, 99, 1]))  # two classes with one image


def test_a_block_that_changes_nothing_has_no_trainability():
    net = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Identity(), nn.Conv2d(3, 3, 3, padding=1), nn.Flatten(),
            nn.Linear(108, CLASSES),
        ),
        12,
    )  # fmt: skip
    card = compare(net, *batch(4, 1, 6, 6), features=("1", "2", "3"))
    per_feature = card.scores["az_trainability"].components["per_feature"]
    assert np.isnan(per_feature).tolist() == [True, True, False]


def test_layers_can_be_left_out_of_lambda_by_name():
    net = perceptron(13)
    whole = compare(net, *batch(5, 1, 2, 2))
    card = compare(net, *batch(5, 1, 2, 2), lambda_exclude=("1",))
    per_layer = card.scores["lswag_lambda"].components["lambda"]
    assert card["lswag_lambda"] == per_layer[1]
    np.testing.assert_array_equal(per_layer, whole.scores["lswag_lambda"].components["lambda"])


def convolutions_with_batch_norm():
    steps, before = [], 3
    for width in (3, 4, 4, 6):
        steps += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        before = width
    return nn.Sequential(*steps, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, CLASSES))


@pytest.mark.parametrize("window", [(0.0, 0.4), (0.3, 0.8), (0.5, 1.0)])
@pytest.mark.parametrize("kind", ["vit", "cnn", "cnn in evaluation mode"])
def test_outside_of_a_window_components_are_nan_and_inside_they_are_the_same(kind, window):
    """Except grasp's, whose Hessian and gradient are those of the watched weights alone."""
    options = {"precision": "float64", "pieces": 4, "zen_repeats": 1, "seed": 3}
    if kind == "vit":
        space = AutoFormerSpace((8,), (2,), (1, 2), (1.5, 2.0), head_dim=4, image_size=6, patch_size=2, classes=CLASSES)
        net = build(space, space.arch(8, [1, 2], [2.0, 1.5]), 1)
    else:
        net = seeded(convolutions_with_batch_norm, 14)
        options |= {"mode": "train" if kind == "cnn" else "eval", "features": ("2", "5", "8", "11")}
    inputs, targets = batch(8, 3, 6, 6)
    whole = engine.score(net, inputs, targets, **options)
    part = engine.score(net, inputs, targets, window=window, **options)
    assert part.axes == whole.axes
    inside = {axis: np.array([window[0] <= d < window[1] for d in a.depth]) for axis, a in whole.axes.items()}
    inside["feature"][:] = True  # primary blocks are no layers
    assert 0 < inside["layer"].sum() < len(inside["layer"])
    for name, score in whole.scores.items():
        for component, values in score.components.items():
            axes = registry.get(name).components[component]
            mask = np.ix_(*(inside[axis] for axis in axes))
            got = part.scores[name].components[component]
            outside = np.ones(got.shape, bool)
            outside[mask] = False
            assert np.isnan(got[outside]).all(), (name, component)
            if name != "grasp":
                np.testing.assert_allclose(
                    got[mask], values[mask], rtol=1e-8, atol=1e-14, err_msg=f"{name}: {component}"
                )
    for name in ("snip", "gsnr", "zico", "lswag_lambda"):
        values = whole.scores[name].components["lambda" if name == "lswag_lambda" else "per_layer"]
        assert part[name] == pytest.approx(values[inside["layer"]].sum(), rel=1e-9), name
    for name in ("jacov", "epe_nas", "ntk_cond", "az_expressivity", "az_trainability", "zen"):  # of the whole network
        assert part[name] == pytest.approx(whole[name], rel=1e-9, nan_ok=True), name
    words = whole.scores["lswag_psi"].components["union"]
    seen = np.flatnonzero(inside["activation"])
    if len(seen):
        assert part["lswag_psi"] == words[seen[0], seen[-1]]


# -- patterns ------------------------------------------------------------------------------------------------


@few
@given(st.integers(1, 130), st.integers(1, 40), st.integers(0, 10**6))
def test_packed_words_are_exact(samples, units, seed):
    rng = np.random.default_rng(seed)
    kinds = rng.random((samples, 6)) < 0.5
    bits = torch.from_numpy(kinds[:, rng.integers(0, 6, units)]).float()  # few kinds, so that patterns repeat
    words = pack_bits(bits)
    assert words.dtype == torch.int64 and words.shape == (units, math.ceil(samples / 64))
    for v in range(units):
        unpacked = [(int(words[v, s // 64]) >> (s % 64)) & 1 for s in range(samples)]
        assert unpacked == bits[:, v].long().tolist()
    assert len(Activation("a", bits).patterns()) == len({tuple(c) for c in bits.T.tolist()})
    first = max(1, samples // 2)
    assert len(Activation("a", bits).patterns(first)) == len({tuple(c) for c in bits[:first].T.tolist()})


@pytest.mark.parametrize("samples", [63, 64, 65, 128, 129])
def test_the_last_sample_of_a_word_counts(samples):
    bits = torch.zeros(samples, 3)
    bits[-1, 1] = 1
    bits[0, 2] = 1
    assert len(Activation("a", bits).patterns()) == 3


@few
@given(st.lists(st.sets(st.integers(-4, 4), min_size=1), min_size=1, max_size=6), st.booleans())
def test_window_unions(sets, wide):
    tensors = [torch.tensor(sorted(s)) for s in sets]
    if wide:  # more than 64 samples: several words a pattern
        tensors = [torch.stack([t, -t * t], 1) for t in tensors]
    np.testing.assert_array_equal(window_unions(tensors), reference.unions(sets))


@few
@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 10**6))
def test_agreement_counts_units(samples, units, seed):
    values = torch.randn(samples, units, generator=torch.Generator().manual_seed(seed))
    bits = (values > 0).float()
    np.testing.assert_array_equal(Activation("a", bits).agreement_SS, reference.agreement(values))


# -- moments -------------------------------------------------------------------------------------------------


@few
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.floats(0, 1e4),
    st.sampled_from([(1, 2, 3), (2, 2, 5), (1, 3, 300)]),
    st.booleans(),
)
def test_moments_do_not_depend_on_how_units_are_cut(units, piece, offset, shape, one_by_one):
    groups, out, into = shape
    generator = torch.Generator().manual_seed(units)
    a = torch.randn(units, groups, 2, into, generator=generator, dtype=torch.float64) + offset
    d = torch.randn(units, groups, 2, out, generator=generator, dtype=torch.float64)
    g = torch.stack([torch.stack([d[u, k].T @ a[u, k] for k in range(groups)]) for u in range(units)]).flatten(1, 2)
    moments = Moments(Wanted(mean=True, spread=True, signs=True, accumulated=True))
    if one_by_one:
        for unit in g:
            moments.add_unit(unit)
    else:
        for start in range(0, units, piece):
            moments.add_products(a[start : start + piece], d[start : start + piece])
    assert moments.units == units
    weight, scale = torch.ones(groups * out, into, dtype=torch.float64), 3.0
    found, sums = moments.gradient("a", weight, scale), moments.gradient("a", weight, scale, sums=True)
    near = {"rtol": 1e-6, "atol": 1e-9 * (1 + offset)}
    torch.testing.assert_close(found.mean_OI, scale * g.mean(0), **near)
    torch.testing.assert_close(found.abs_mean_OI, scale * g.abs().mean(0), **near)
    torch.testing.assert_close(found.std_OI, scale * g.std(0, correction=0), **near)
    torch.testing.assert_close(found.abs_std_OI, scale * g.abs().std(0, correction=0), **near)
    torch.testing.assert_close(found.sign_sum_OI, g.sign().sum(0))
    running = scale * torch.stack([g[: u + 1].sum(0) for u in range(units)])
    torch.testing.assert_close(sums.mean_OI, running.mean(0), **near)
    torch.testing.assert_close(sums.std_OI, running.std(0, correction=0), **near)
