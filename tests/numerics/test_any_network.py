"""Networks that keep their samples, or use their weights, in other ways than the rules for layers expect."""

import copy
import importlib.util
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm.layers
import torch
import torch.nn.functional as F
from timm.layers import grn
from torch import nn
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from libranas.zero_cost import score as engine
from libranas.zero_cost.options import Options
from libranas.zero_cost.passes.data import UnitRun

_spec = importlib.util.spec_from_file_location("reference", Path(__file__).with_name("reference.py"))
reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reference)

CLASSES, C, T = 3, 4, 8  # T: tokens, as many as images in the batch
PER_SAMPLE = ["zico", "gsnr", "gradsign", "snip", "lswag_lambda"]
SIGNS = ["nwot", "swap", "linear_regions"]


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 1, 8, 4, generator=generator), torch.arange(8) % CLASSES


def score(net, batch, names, **options):
    return engine.score(net, *batch, names, precision="float64", **options)


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return make()


def assert_autograds_values(net, batch, weights=None, names=PER_SAMPLE):
    """What the proxies of layers have to be: of the weights (default: what a layer module owns), a sample at a time."""
    card, net = score(net, batch, names), copy.deepcopy(net).double().eval()
    if weights is None:
        weights = [f"{n}.weight" for n, m in net.named_modules() if isinstance(m, (nn.Linear, nn.modules.conv._ConvNd))]
    assert set(card.axes["layer"].names) == {name.removesuffix(".weight") for name in weights}
    parameters = dict(net.named_parameters(remove_duplicate=False))
    layers = {name: SimpleNamespace(weight=parameters[name].requires_grad_()) for name in weights}
    x, y = batch[0].double(), batch[1]
    units = [(x[i : i + 1], y[i : i + 1]) for i in range(len(x))]
    parts = reference.of_units(net, units, layers, Options())
    want = {name: sum(parts[name, "per_layer"]) for name in ("zico", "gsnr", "gradsign")}
    want["lswag_lambda"] = sum(parts["lswag_lambda", "lambda"])
    slopes = reference.gradients(net, x, y, layers)
    want["snip"] = sum((m.weight * g).abs().sum().item() for m, g in zip(layers.values(), slopes, strict=True))
    for name in names:
        assert card[name] == pytest.approx(want[name], rel=1e-7), (name, card.scores[name].reason)
    return card


# -- rows of layers that are not the samples -----------------------------------------------------------------


class Tokens(nn.Module):
    """Tokens of an image in one of several layouts; the same function in all of them."""

    LAYOUTS = ("batch first", "tokens first", "rows of tokens", "rows of images", "batch last")

    def __init__(self, layout: str):
        super().__init__()
        self.layout, self.norm, self.fc1, self.act = layout, nn.LayerNorm(C), nn.Linear(C, 6), nn.ReLU()
        self.mix, self.head = nn.Linear(T, T), nn.Linear(6, CLASSES)

    def forward(self, images):
        x_BTC = images.squeeze(1)
        x = {
            "batch first": x_BTC,
            "tokens first": x_BTC.transpose(0, 1),
            "rows of tokens": x_BTC.transpose(0, 1).flatten(0, 1),
            "rows of images": x_BTC.flatten(0, 1),
            "batch last": x_BTC.permute(1, 2, 0).transpose(1, 2),
        }[self.layout]
        x = self.act(self.fc1(self.norm(x)))
        x_BTC = {
            "batch first": lambda: x,
            "tokens first": lambda: x.transpose(0, 1),
            "rows of tokens": lambda: x.unflatten(0, (T, -1)).transpose(0, 1),
            "rows of images": lambda: x.unflatten(0, (-1, T)),
            "batch last": lambda: x.transpose(0, 1),
        }[self.layout]()
        if self.layout == "batch last":
            x_BTC = self.mix(x_BTC.permute(2, 0, 1)).permute(1, 2, 0)  # channels first, tokens last
        else:
            x_BTC = self.mix(x_BTC.transpose(1, 2)).transpose(1, 2)
        return self.head(x_BTC.mean(1))


def test_the_layout_of_tokens_changes_nothing(batch):
    names = [*PER_SAMPLE, *SIGNS, "fisher", "tcet", "lswag", "lswag_sample", "ntk_cond", "synflow", "grasp", "jacov"]
    cards = {layout: score(seeded(lambda n=layout: Tokens(n)), batch, names) for layout in Tokens.LAYOUTS}
    for layout, card in cards.items():
        for name in names:
            want = cards["batch first"][name]
            assert card[name] == pytest.approx(want, rel=1e-7, nan_ok=True), (layout, name, card.scores[name].reason)
    first = score(seeded(lambda: Tokens("tokens first")), batch, ["meco"])["meco"]
    assert first == pytest.approx(score(seeded(lambda: Tokens("batch first")), batch, ["meco"])["meco"])


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_layout_after_a_batch_norm_in_evaluation_mode_changes_nothing(batch, precision):
    """For one image with such strides torch's own gradient through the norm is wrong."""

    class Net(nn.Module):
        def __init__(self, first):
            super().__init__()
            self.first, self.conv, self.norm = first, nn.Conv2d(1, C, 3, padding=1), nn.BatchNorm2d(C)
            self.fc, self.head = nn.Linear(C, C), nn.Linear(C, CLASSES)

        def forward(self, x):
            x = self.norm(self.conv(x)).flatten(2).transpose(1, 2)
            x = self.fc(x.transpose(0, 1)).transpose(0, 1) if self.first else self.fc(x)
            return self.head(x.relu().mean(1))

    names, options = ["zico", "snip", "ntk_cond"], {"mode": "eval", "precision": precision}
    cards = [engine.score(seeded(lambda f=f: Net(f)), *batch, names, **options) for f in (False, True)]
    for name in names:
        assert cards[1][name] == pytest.approx(cards[0][name], rel=1e-4), name


class Crops(nn.Module):
    """Two views of each image in one batch: all first views, then all second ones; or each image's together."""

    def __init__(self, together: bool):
        super().__init__()
        self.together, self.fc, self.act, self.head = together, nn.Linear(32, 5), nn.ReLU(), nn.Linear(10, CLASSES)

    def forward(self, x):
        views = torch.stack([x, x.flip(-1)], int(self.together)).flatten(0, 1)
        z = self.act(self.fc(views.flatten(1)))
        z = z.unflatten(0, (-1, 2)) if self.together else z.unflatten(0, (2, -1)).transpose(0, 1)
        return self.head(z.flatten(1))


def test_views_of_an_image_are_one_sample_in_either_order(batch):
    cards = [score(seeded(lambda t=t: Crops(t)), batch, [*PER_SAMPLE, *SIGNS, "fisher"]) for t in (True, False)]
    for name in cards[0].scores:
        assert cards[1][name] == pytest.approx(cards[0][name], rel=1e-7), name
    assert_autograds_values(seeded(lambda: Crops(False)), batch)


class Recurrent(nn.Module):
    def __init__(self, kind, **arguments):
        super().__init__()
        self.rnn, self.head = kind(C, 5, **arguments), nn.Linear(5, CLASSES)

    def forward(self, x):
        x = x.squeeze(1)
        return self.head(self.rnn(x)[0][:, -1] if self.rnn.batch_first else self.rnn(x.transpose(0, 1))[0][-1])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("batch_first", [True, False])
def test_recurrent_layers(batch, kind, batch_first):
    weights = ["rnn.weight_ih_l0", "rnn.weight_hh_l0", "head.weight"]
    net = seeded(lambda: Recurrent(kind, batch_first=batch_first))
    assert_autograds_values(net, batch, weights)


class PositionBias(nn.Module):
    """A small network turns coordinates, the same for all images, into a bias; an expert that few images choose."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 1))
        self.register_buffer("coordinates", torch.randn(1, T * C, 2))
        self.vector, self.gate = nn.Parameter(torch.randn(6)), nn.Linear(6, 32)  # without a dimension of the batch
        self.expert, self.head = nn.Linear(32, 32), nn.Linear(32, CLASSES)

    def forward(self, x):
        chosen = x.flatten(1)[:, :1] > 0.5
        x = (x.flatten(1) + self.bias(self.coordinates).squeeze(-1)) * self.gate(self.vector)
        return self.head(torch.where(chosen, self.expert(x), x) if chosen.any() else x)


def test_a_layer_that_sees_no_image_and_one_that_sees_few(batch):
    card = assert_autograds_values(seeded(PositionBias), batch)
    assert all(math.isfinite(score(seeded(PositionBias), batch, [n])[n]) for n in ("fisher", "swap", "ntk_cond"))
    assert card.warnings == ()
    micro = score(seeded(PositionBias), batch, ["zico", "swap"], unit="microbatch", pieces=4)
    assert math.isfinite(micro["zico"]) and math.isfinite(micro["swap"])


def test_rows_that_depend_on_the_image(batch):
    """The first and the last image have one row each, which looks as usual; the others have two."""

    class Selects(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.act, self.head = nn.Linear(C, 6), nn.ReLU(), nn.Linear(6, CLASSES)

        def forward(self, x):
            x, chosen = x.squeeze(1), x.squeeze(1)[..., 0] > 10
            rows, image = self.act(self.fc(x[chosen])), chosen.nonzero()[:, 0]
            return self.head(torch.zeros(len(x), 6, dtype=rows.dtype).index_add(0, image, rows))

    inputs = batch[0].clone()
    inputs[:, 0, 0, 0] = inputs[1:-1, 0, 1, 0] = 11
    assert_autograds_values(seeded(Selects), (inputs, batch[1]))
    card = score(seeded(Selects), (inputs, batch[1]), ["nwot", "fisher", "ntk_cond"], ntk_images=3)
    assert math.isnan(card["nwot"]) and "another size" in card.scores["nwot"].reason
    assert math.isfinite(card["fisher"]) and math.isfinite(card["ntk_cond"])


def test_ordinary_networks_are_run_as_a_whole(batch, monkeypatch):
    monkeypatch.setattr(UnitRun, "run_pieces", lambda *_: 1 / 0)
    nets = [
        lambda: Tokens("batch first"),
        lambda: Tokens("rows of images"),
        lambda: convolution(nn.GroupNorm(1, 5), nn.ReLU(inplace=True), nn.Conv2d(5, 5, 3, padding=1)),
    ]
    for make in nets:
        net = seeded(make)
        net(batch[0])
        with torch.no_grad():  # all is zero after it, which must not hide what comes before
            list(net.modules())[-1].weight.zero_()
        card = score(net, batch, [*PER_SAMPLE, *SIGNS, "fisher", "tcet", "lswag_sample", "ntk_cond"])
        assert math.isfinite(card["snip"]) and card.warnings == ()


def test_the_tangent_kernel_counts_a_layer_that_sees_the_same_for_every_image(batch):
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.positions, self.head = nn.Linear(2, 1), nn.Linear(32, CLASSES)
            self.register_buffer("coordinates", torch.randn(1, 32, 2))

        def forward(self, x):
            return self.head(x.flatten(1) * self.positions(self.coordinates.expand(len(x), -1, -1)).squeeze(-1))

    net = seeded(Positions)
    want = reference.ntk_cond(copy.deepcopy(net).double(), batch[0][:3].double())
    assert score(net, batch, ["ntk_cond"], ntk_images=3)["ntk_cond"] == pytest.approx(want, rel=1e-8)


# -- weights that are used in other ways than their module's ----------------------------------------------------


class Direct(nn.Module):
    """Reads weights without their modules, as one attention does that adds a bias of its own."""

    def __init__(self, read):
        super().__init__()
        self.read, self.fc, self.act, self.head = read, nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, CLASSES)
        self.kernel = nn.Parameter(torch.randn(2, 1, 3, 3) * 0.3)
        self.matrix = nn.Parameter(torch.randn(32, 32) * 0.2)

    def forward(self, x):
        return self.head(self.act(self.read(self, x)))


DIRECT = {
    "linear": (lambda net, x: F.linear(x.flatten(1), net.fc.weight), ["fc"]),
    "beside its module": (lambda net, x: net.fc(x.flatten(1)) + F.linear(x.flatten(1), net.fc.weight.mT), ["fc"]),
    "transposed": (lambda net, x: x.flatten(1) @ net.fc.weight.T, ["fc"]),
    "einsum": (lambda net, x: torch.einsum("bi,oi->bo", x.flatten(1), net.fc.weight), ["fc"]),
    "bare matrix": (lambda net, x: F.linear(x.flatten(1), weight=net.matrix), ["matrix"]),
    "bare kernel": (lambda net, x: F.conv2d(x, net.kernel, padding=1).mean(1).flatten(1), ["kernel"]),
    "sum of two": (lambda net, x: F.linear(x.flatten(1), net.fc.weight + 0.1 * net.matrix), ["fc", "matrix"]),
}


@pytest.mark.parametrize("kind", DIRECT)
def test_a_weight_that_is_read_counts(batch, kind):
    read, places = DIRECT[kind]
    net = seeded(lambda: Direct(read))
    weights = [name if name in ("matrix", "kernel") else f"{name}.weight" for name in [*places, "head"]]
    card = assert_autograds_values(net, batch, weights)
    assert not {f"{place}.weight" for place in places} & set(card.excluded) and card.warnings == ()
    more = score(net, batch, ["l2_norm", "synflow", "grasp", "fisher", "ntk_cond", "zen"])
    assert all(math.isfinite(more[name]) or more.scores[name].reason for name in more.scores)
    norms = [dict(net.named_parameters())[name].norm().item() for name in weights]
    assert more["l2_norm"] == pytest.approx(sum(norms), rel=1e-6)


def test_fisher_sees_a_weight_without_its_module_as_with_it(batch):
    nets = [
        Direct(lambda net, x: net.fc(x.flatten(1))),
        Direct(lambda net, x: F.linear(x.flatten(1), *net.fc.parameters())),
    ]
    nets[1].load_state_dict(nets[0].state_dict())
    cards = [score(net, batch, ["fisher", "tcet", "zico"]) for net in nets]
    for name in cards[0].scores:
        assert cards[1][name] == pytest.approx(cards[0][name], rel=1e-7, nan_ok=True), name


def test_a_bare_matrix_that_multiplies_is_named(batch):
    net = seeded(lambda: Direct(lambda net, x: x.flatten(1) @ net.matrix))
    card = score(net, batch, ["snip"])
    assert (
        "matrix" in card.excluded and "1 weights multiply images" in card.warnings[0] and "matrix" in card.warnings[0]
    )


class Affine(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.full((5,), 0.7))

    def forward(self, x):
        return x * self.weight.view(-1, *[1] * (x.dim() - 2))


def convolution(*layers) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 5, 3), *layers, nn.GELU(), nn.Flatten(), nn.LazyLinear(CLASSES))


WITHOUT_RULE = {
    "instance norm": lambda: convolution(nn.InstanceNorm2d(5, affine=True)),
    "grn": lambda: convolution(grn.GlobalResponseNorm(5, channels_last=False)),
    "channels-first norm": lambda: convolution(timm.layers.LayerNorm2d(5)),
    "prelu": lambda: convolution(nn.PReLU(5)),
    "affine": lambda: convolution(Affine()),
    "standardised": lambda: convolution(timm.layers.ScaledStdConv2d(5, 6, 3)),
    "padded as needed": lambda: convolution(timm.layers.Conv2dSame(5, 6, 3, stride=2)),
    "transposed": lambda: convolution(nn.ConvTranspose2d(5, 2, 3)),
    "3d": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 1)), nn.Conv3d(1, 3, (1, 3, 3)), nn.Flatten(), nn.LazyLinear(CLASSES)
    ),
    "lora modules": lambda: nn.Sequential(nn.Flatten(), LoRA(), nn.Linear(6, CLASSES)),
}


class LoRA(nn.Module):
    def __init__(self):
        super().__init__()
        self.base, self.down, self.up = nn.Linear(32, 6), nn.Linear(32, 2, bias=False), nn.Linear(2, 6, bias=False)

    def forward(self, x):
        return self.base(x) + 0.5 * self.up(self.down(x))


@pytest.mark.parametrize("kind", WITHOUT_RULE)
def test_a_layer_without_a_rule(batch, kind):
    net = seeded(WITHOUT_RULE[kind])
    net(batch[0])  # lazy layers learn their size
    assert_autograds_values(net, batch)
    assert math.isfinite(score(net, batch, ["ntk_cond"])["ntk_cond"])


@pytest.mark.parametrize("parametrise", [weight_norm, spectral_norm, orthogonal])
def test_a_weight_that_is_computed_counts_by_what_it_is_made_of(batch, parametrise):
    net = seeded(lambda: nn.Sequential(nn.Flatten(), parametrise(nn.Linear(32, 6)), nn.ReLU(), nn.Linear(6, CLASSES)))
    (made_of,) = [n for n, p in net[1].named_parameters() if p.shape == (6, 32)]
    assert_autograds_values(net, batch, [f"1.{made_of}", "3.weight"])


def test_the_older_weight_norm_is_as_the_newer_one(batch):
    def net(norm):
        return nn.Sequential(nn.Flatten(), norm(nn.Linear(32, 6)), nn.ReLU(), nn.Linear(6, CLASSES))

    with pytest.warns(FutureWarning):
        cards = [score(seeded(lambda n=n: net(n)), batch, PER_SAMPLE) for n in (weight_norm, nn.utils.weight_norm)]
    assert [cards[1][name] for name in PER_SAMPLE] == pytest.approx([cards[0][name] for name in PER_SAMPLE])


class Attention(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.attn, self.head = layer, nn.Linear(C, CLASSES)

    def forward(self, x):
        x = x.squeeze(1)
        batch_first = next(m.batch_first for m in self.modules() if isinstance(m, nn.MultiheadAttention))
        x = x if batch_first else x.transpose(0, 1)
        if isinstance(self.attn, nn.MultiheadAttention):
            keys = x if self.attn.kdim == C else x[..., : self.attn.kdim]
            x = self.attn(x, keys, keys)[0]
        else:
            x = self.attn(x)
        return self.head(x.mean(1 if batch_first else 0))


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", ["attention", "other keys", "encoder"])
def test_multihead_attention(batch, kind, batch_first):
    make = {
        "attention": lambda: nn.MultiheadAttention(C, 2, batch_first=batch_first),
        "other keys": lambda: nn.MultiheadAttention(C, 2, kdim=2, vdim=2, batch_first=batch_first),
        "encoder": lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(C, 2, 6, batch_first=batch_first), 2),
    }[kind]
    net = seeded(lambda: Attention(make()))
    weights = [n for n, p in net.named_parameters() if p.dim() > 1]
    assert_autograds_values(net, batch, weights)
    card = score(net, batch, ["fisher", "dss", "ntk_cond", "flops"])
    assert all(math.isfinite(card[name]) for name in card.scores), card.scores
    if kind == "attention":
        assert card["flops"] == T * C * 3 * C + 2 * T * T * C + T * C * C + C * CLASSES


def test_multihead_attention_by_hand(batch):
    """Fisher and T-CET see its products as those of linear layers."""

    class ByHand(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.proj, self.head = nn.Linear(C, 3 * C), nn.Linear(C, C), nn.Linear(C, CLASSES)

        def forward(self, x):
            q, k, v = self.qkv(x.squeeze(1)).unflatten(2, (3, 2, C // 2)).permute(2, 0, 3, 1, 4)
            x = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            return self.head(self.proj(x).mean(1))

    net, hand = seeded(lambda: Attention(nn.MultiheadAttention(C, 2, batch_first=True))), ByHand()
    hand.load_state_dict(dict(zip(hand.state_dict(), net.state_dict().values(), strict=True)))
    names = ["fisher", "tcet", "zico", "snip", "grasp", "synflow", "ntk_cond"]
    cards = [score(n, batch, names) for n in (net, hand)]
    for name in names:
        assert cards[0][name] == pytest.approx(cards[1][name], rel=1e-7), name


# -- images that influence each other ---------------------------------------------------------------------------


def test_images_that_influence_each_other_are_scored_in_micro_batches(batch):
    class Mixes(nn.Module):
        def __init__(self):
            super().__init__()
            self.act, self.head = nn.ReLU(), nn.Linear(32, CLASSES)

        def forward(self, x):
            return self.head(self.act(x.flatten(1) - x.flatten(1).mean(0)))

    card = score(seeded(Mixes), batch, ["zico", "snip", "nwot", "lswag_sample", "ntk_cond", "jacov"], pieces=4)
    micro = score(seeded(Mixes), batch, ["zico"], pieces=4, unit="microbatch")
    assert card["zico"] == micro["zico"] and "depend on the other images" in card.warnings[0]
    assert all(math.isfinite(card[name]) for name in ("zico", "snip", "nwot", "ntk_cond", "jacov"))
    assert math.isnan(card["lswag_sample"]) and "other images" in card.scores["lswag_sample"].reason


def test_beside_batch_norm_in_training_mode_odd_rows_leave_out_only_what_needs_them(batch):
    def net(odd):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.norm, self.act, self.head = nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, CLASSES)
                self.positions, self.table = nn.Linear(1, 32), torch.ones(1, 1)

            def forward(self, x):
                table = self.table.to(x.dtype).expand(1 if odd else len(x), 1)
                return self.head(self.act(self.norm(x.flatten(1)) + self.positions(table)))

        return seeded(Net)

    names = ["snip", "nwot", "swap", "zico", "tcet", "fisher"]
    odd, even = (score(net(o), batch, names, pieces=4) for o in (True, False))
    for name in names[:-1]:
        assert odd[name] == pytest.approx(even[name], rel=1e-9, nan_ok=True), name
    assert math.isfinite(even["fisher"]) and "layer positions" in odd.scores["fisher"].reason


# -- checkpointing --------------------------------------------------------------------------------------------------


class Checkpointed(nn.Module):
    def __init__(self, run):
        super().__init__()
        self.run, self.blocks, self.head = run, nn.ModuleList(), nn.Linear(32, CLASSES)
        self.blocks.extend(nn.Sequential(nn.Linear(32, 32), nn.GELU()) for _ in range(3))

    def forward(self, x):
        return self.head(self.run(self.blocks, x.flatten(1)))


def one_by_one(blocks, x, **how):
    for block in blocks:
        x = checkpoint(block, x, **how) if how else block(x)
    return x


CHECKPOINTS = {
    "reentrant": lambda blocks, x: one_by_one(blocks, x, use_reentrant=True),
    "not reentrant": lambda blocks, x: one_by_one(blocks, x, use_reentrant=False),
    "sequential": lambda blocks, x: checkpoint_sequential(list(blocks), 2, x, use_reentrant=False),
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_checkpointing_changes_nothing(batch, kind):
    names = [
        "zico",
        "snip",
        "nwot",
        "fisher",
        "tcet",
        "ntk_cond",
        "jacov",
        "grasp",
        "synflow",
        "meco",
        "lswag",
        "flops",
    ]
    cards = [score(seeded(lambda r=run: Checkpointed(r)), batch, names) for run in (one_by_one, CHECKPOINTS[kind])]
    for name in names:
        assert cards[1][name] == pytest.approx(cards[0][name], rel=0, nan_ok=True), name
    assert cards[0].axes == cards[1].axes
    x = torch.randn(2, 1, 8, 4, requires_grad=True)
    calls = []
    net = seeded(lambda: Checkpointed(CHECKPOINTS[kind]))
    net.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    net(x).sum().backward()
    assert len(calls) == 2  # it is back again
