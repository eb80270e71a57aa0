"""What holds for every proxy of the registry, present and future, on the default small vision transformer."""

import math
import random
import subprocess
import sys

import numpy as np
import pytest
import timm.layers
import torch
from torch import nn

from libranas.core.errors import LibranasError
from libranas.core.scorecard import AXES, ScoreCard
from libranas.networks import build
from libranas.spaces import AutoFormerSpace
from libranas.zero_cost import gradient_moments as moments
from libranas.zero_cost import registry as proxies
from libranas.zero_cost import score as engine
from libranas.zero_cost.executor import Executor
from libranas.zero_cost.options import Options
from libranas.zero_cost.passes import context
from libranas.zero_cost.proxy import NEEDS

NAMES = proxies.list_proxies()
each = pytest.mark.parametrize("name", NAMES)
SPACE = AutoFormerSpace(
    embed_dim=(32,),
    depth=(3,),
    num_heads=(2, 3),
    mlp_ratio=(2.0, 3.0),
    head_dim=16,
    image_size=8,
    patch_size=2,
    channels=1,
    classes=10,
    max_relative_position=3,
)
ARCH = SPACE.arch(32, (2, 3, 2), (3.0, 2.0, 2.0))


@pytest.fixture
def model():
    return build(SPACE, ARCH, seed=3)


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(12, 1, 8, 8, generator=generator), torch.arange(12) % 10


def cnn(groups: int = 1) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Conv2d(4, 4, 3, stride=2, groups=groups),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(36, 10),
        )


def score(model, inputs, targets, names=None, **options) -> ScoreCard:
    """Like the engine, with the one option that has no default that makes sense."""
    return engine.score(model, inputs, targets, names, **{"reg_swap": (20.0, 400.0), **options})


def assert_same(card: ScoreCard, other: ScoreCard, name: str, rel: float = 0.0):
    """Value and components of one proxy agree; bit for bit if `rel` is 0."""
    a, b = card.scores[name], other.scores[name]
    assert a.value == pytest.approx(b.value, rel=rel, abs=0, nan_ok=True)
    assert a.reason == b.reason and a.components.keys() == b.components.keys()
    for key, values in a.components.items():
        np.testing.assert_allclose(values, b.components[key], rtol=rel, atol=1e-12 if rel else 0, err_msg=key)


def assert_all_same(card: ScoreCard, other: ScoreCard, names=NAMES, rel: float = 0.0):
    for name in names:
        assert_same(card, other, name, rel)


def sharp(model, batch, names, **options) -> ScoreCard:
    return score(model, *batch, names, seed=1, precision="float64", **options)


# -- records -------------------------------------------------------------------------------------------------


@each
def test_the_record_is_complete(name):
    proxy = proxies.get(name)
    assert proxy.name == name and proxy.title and proxy.source and proxy.version >= 1
    assert proxy.orientation in (1, -1)
    assert all(axis in AXES for axes in proxy.components.values() for axis in axes)
    assert bool(proxy.parts) != bool(proxy.captured(Options()))
    assert not any(proxies.get(part).parts for part in proxy.parts)
    runs = {NEEDS[need][0] for need in proxy.captured(Options())} or {proxies.get(p).run for p in proxy.parts}
    assert proxy.run in runs


def test_records_are_read_without_torch():
    """Snakemake reads them while it parses the workflow; so does the stage that applies the layer window."""
    code = (
        "import sys, libranas.scores.layer_window; from libranas.zero_cost.registry import PROXIES, Options;"
        "assert all(p.captured(Options()) or p.parts for p in PROXIES.values()); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_proxy_is_named_and_the_known_ones_listed(model, batch):
    with pytest.raises(LibranasError, match="Unknown proxy 'zicoo'") as caught:
        score(model, *batch, ["zicoo"])
    assert all(name in str(caught.value) for name in NAMES)


# -- values --------------------------------------------------------------------------------------------------


@each
def test_finite_with_the_declared_components(model, batch, name):
    card = score(model, *batch, [name])
    found = card.scores[name]
    assert math.isfinite(found.value) and found.reason == ""
    assert math.isfinite(found.seconds) and found.pass_name in card.passes
    declared = proxies.get(name).components
    assert found.components.keys() == declared.keys()
    for key, axes in declared.items():
        assert found.components[key].shape == tuple(len(card.axes[axis].names) for axis in axes)
        assert np.isfinite(found.components[key]).any()


def test_axes_name_the_places_with_rising_depth(model, batch):
    axes = score(model, *batch).axes
    assert axes["layer"].names[0] == "patch_embed.proj" and axes["layer"].names[-1] == "head"
    assert len(axes["layer"].names) == 2 + 4 * 3
    assert axes["activation"].names == tuple(f"blocks.{i}.mlp.act" for i in range(3))
    assert axes["feature"].names == tuple(f"blocks.{i}.after_{s}" for i in range(3) for s in ("attn", "mlp"))
    for axis in axes.values():
        assert list(axis.depth) == sorted(axis.depth) and axis.depth[0] >= 0 and axis.depth[-1] < 1
    fc1 = axes["layer"].names.index("blocks.0.mlp.fc1")
    assert axes["activation"].depth[0] == axes["layer"].depth[fc1]


def test_every_parameter_is_a_layer_or_is_named_as_excluded(model, batch):
    card = score(model, *batch, ["snip"])
    counted = {f"{n}.weight" for n in card.axes["layer"].names}
    assert counted | set(card.excluded) == {n for n, _ in model.named_parameters()}
    assert not counted & set(card.excluded)


def test_a_record_of_the_card_keeps_every_bit(model, batch):
    card = score(model, *batch)
    again = ScoreCard.from_record(card.to_record())
    assert again.axes == card.axes and again.excluded == card.excluded
    assert_all_same(card, again)


# -- invariances ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def all_of_it(batch):
    return sharp(build(SPACE, ARCH, seed=3), batch, NAMES)


@each
def test_deterministic(model, batch, name):
    assert_same(score(model, *batch, [name]), score(model, *batch, [name]), name)


@each
def test_alone_as_with_all_others(model, batch, all_of_it, name):
    assert_same(sharp(model, batch, [name]), all_of_it, name, rel=1e-12)


def test_the_order_of_proxies_changes_nothing(model, batch, all_of_it):
    card = sharp(model, batch, NAMES[::-1])
    assert set(card.scores) == set(NAMES)
    assert_all_same(card, all_of_it)


@each
def test_the_order_of_samples_changes_nothing(model, batch, all_of_it, name):
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    assert_same(sharp(model, (batch[0][order], batch[1][order]), [name]), all_of_it, name, rel=1e-8)


@each
def test_the_size_of_chunks_changes_nothing(model, batch, all_of_it, monkeypatch, name):
    monkeypatch.setattr(moments, "TILE", 3000)  # some rows of a weight at a time
    monkeypatch.setattr(moments, "COLUMNS", 20)
    assert_same(sharp(model, batch, [name]), all_of_it, name, rel=1e-9)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_the_callers_grad_mode_changes_nothing(model, batch, all_of_it, context):
    with context():
        inputs = batch[0] * 1  # made here, so that it is an inference tensor
        card = sharp(model, (inputs, batch[1]), NAMES)
        single = score(model, inputs, batch[1], seed=1)
    assert_all_same(card, all_of_it)
    assert_all_same(single, score(model, *batch, seed=1))


def test_the_callers_autocast_and_tf32_change_nothing(model, batch):
    names = ["snip", "lswag", "tcet", "jacov", "az_expressivity"]
    before = torch.backends.cudnn.allow_tf32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        card = score(model, *batch, names)
    assert torch.backends.cudnn.allow_tf32 == before
    assert_all_same(card, score(model, *batch, names), names)


def test_frozen_parameters_change_nothing_but_their_count(model, batch, all_of_it):
    model.requires_grad_(False)
    of_others = [name for name in NAMES if name not in ("params", "reg_swap")]  # the number of *trainable* parameters
    assert_all_same(sharp(model, batch, NAMES), all_of_it, of_others)
    assert not any(p.requires_grad for p in model.parameters())


def test_old_gradients_change_nothing(model, batch, all_of_it):
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    assert_all_same(sharp(model, batch, NAMES), all_of_it)


def test_the_global_random_state_and_other_seeds_matter_only_where_noise_is_drawn(model, batch, all_of_it):
    torch.manual_seed(99)
    card = score(model, *batch, seed=2, precision="float64")
    for name in NAMES:
        if proxies.get(name).run.batch == "noise":
            assert card[name] != all_of_it[name]
        else:
            assert_same(card, all_of_it, name)


# -- the model is left alone ---------------------------------------------------------------------------------


def snapshot(model):
    return {
        "tensors": {n: (t, t._version, t.detach().clone()) for n, t in model.state_dict(keep_vars=True).items()},
        "buffers": {n: b.clone() for n, b in model.named_buffers()},
        "grads": {n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()},
        "flags": [(n, p.requires_grad) for n, p in model.named_parameters()],
        "modes": [(n, m.training) for n, m in model.named_modules()],
        "fused": [(n, getattr(m, "fused_attn", None)) for n, m in model.named_modules()],
        "attributes": [(n, sorted(vars(m))) for n, m in model.named_modules()],
        "hooks": [(n, [list(v) for k, v in vars(m).items() if k.endswith("_hooks")]) for n, m in model.named_modules()],
    }


def assert_untouched(model, before):
    after = snapshot(model)
    for n, (tensor, version, values) in before["tensors"].items():
        same, now, _ = after["tensors"][n]
        assert same is tensor and now == version and torch.equal(tensor, values), n
    for key in ("buffers", "grads"):
        for n, tensor in before[key].items():
            now = after[key][n]
            assert (now is None and tensor is None) or torch.equal(now, tensor), n
    for key in ("flags", "modes", "fused", "attributes", "hooks"):
        assert after[key] == before[key], key


def random_states():
    _, keys, *rest = np.random.get_state()
    return torch.get_rng_state().tolist(), keys.tolist(), rest, random.getstate()


def prepared(kind: str) -> nn.Module:
    """A network in an untidy state: mixed modes, a frozen weight, gradients, a hook of the user's own."""
    net = {
        "vit": lambda: build(SPACE, ARCH, seed=3),
        "fused": lambda: build(SPACE, ARCH, seed=3, fused=True, drop_path_rate=0.2),
        "cnn": cnn,
    }[kind]()
    net.train()
    children = list(net.children())
    children[0].eval()
    parameters = list(net.parameters())
    parameters[0].requires_grad_(False)
    parameters[1].grad = torch.full_like(parameters[1], 0.5)
    return net


@pytest.mark.parametrize("kind", ["vit", "fused", "cnn"])
def test_the_model_is_exactly_as_before(batch, kind):
    net, seen = prepared(kind), []
    linear = next(m for m in net.modules() if isinstance(m, nn.Linear))
    handle = linear.register_forward_hook(lambda *_: seen.append(1))
    before, states = snapshot(net), random_states()
    score(net, *batch, pieces=4)
    assert_untouched(net, before)
    assert random_states() == states
    assert seen  # the user's hook took part
    count = len(seen)
    net.eval()(batch[0])
    assert len(seen) == count + 1
    handle.remove()


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_the_model_is_exactly_as_before_after_an_error(batch, kind, monkeypatch):
    net = prepared(kind)
    before, states = snapshot(net), random_states()
    net.register_forward_hook(lambda *_: 1 / 0)
    before["hooks"] = snapshot(net)["hooks"]
    for names in (["zico", "nwot"], ["synflow"], ["flops"]):
        with pytest.raises(ZeroDivisionError):
            score(net, *batch, names, pieces=4)
        assert_untouched(net, before)
    assert random_states() == states


def test_the_batch_is_left_alone(model, batch):
    before = batch[0].clone()
    score(cnn(), *batch, pieces=4)
    score(model, *batch)
    assert torch.equal(batch[0], before) and not batch[0].requires_grad


def test_costs_are_measured(model, batch):
    card = score(model, *batch)
    for name, cost in card.passes.items():
        assert cost.seconds > 0, name
        assert cost.peak_bytes > 2**20 or math.isnan(cost.peak_bytes), name


# -- errors and undefined values -----------------------------------------------------------------------------


def test_timms_linear_layer_is_a_linear_layer(batch):
    cards = []
    for kind in (nn.Linear, timm.layers.Linear):
        torch.manual_seed(1)
        cards.append(score(nn.Sequential(nn.Flatten(), kind(64, 10)), *batch))
    assert_all_same(*cards, ["zico", "synflow"])


@each
def test_undefined_is_nan_with_a_reason_and_never_zero(batch, name):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    found = score(net, *batch, [name]).scores[name]
    if math.isfinite(found.value):
        assert found.reason == "" and found.value != 0
    else:
        assert math.isnan(found.value) and len(found.reason) > 20
    undefined = {"nwot", "swap", "reg_swap", "linear_regions", "lswag_psi", "lswag", "lswag_sample_psi", "lswag_sample"}
    undefined |= {"az_expressivity", "az_progressivity", "az_trainability", "zen"}  # no blocks
    undefined |= {"meco", "dss", "tcet"}  # no positions, no attention, 10 outputs cannot tell 12 images apart
    assert math.isnan(found.value) == (name in undefined)


@each
def test_a_value_that_is_not_finite_has_a_reason(batch, name):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))
    with torch.no_grad():
        net[1].weight.fill_(float("nan"))
    found = score(net, *batch, [name]).scores[name]
    assert math.isfinite(found.value) == (found.reason == "")


def test_a_layer_that_the_loss_does_not_reach_is_named(batch):
    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.aside = nn.Linear(64, 10), nn.Linear(64, 10)

        def forward(self, x):
            x = x.flatten(1)
            self.aside(x)
            return self.used(x)

    card = score(Aside(), *batch, ["snip", "zico", "synflow"])
    for name in ("snip", "zico", "synflow"):
        assert math.isnan(card[name]) and "aside" in card.scores[name].reason


def test_rows_of_activations_are_of_their_image(batch):
    class Windows(nn.Module):
        """As in Swin: the activation sees four windows of each image as rows of their own."""

        def __init__(self, width):
            super().__init__()
            self.width, self.act, self.head = width, nn.ReLU(), nn.Linear(64, 10)

        def forward(self, x):
            return self.head(self.act(x.reshape(-1, self.width)).reshape(len(x), 64))

    names = ["snip", "nwot", "swap", "linear_regions"]
    torch.manual_seed(1)
    windows, whole = Windows(16), Windows(64)
    whole.load_state_dict(windows.state_dict())
    assert_all_same(score(windows, *batch, names), score(whole, *batch, names), names)


@each
def test_a_network_that_is_a_single_layer(batch, name):
    inputs = batch[0].flatten(1)
    found = score(nn.Linear(64, 10), inputs, batch[1], [name]).scores[name]
    assert math.isfinite(found.value) == (found.reason == "")


def test_a_batch_that_cannot_be_cut_is_an_error_for_the_reader(batch):
    with pytest.raises(LibranasError, match="batch of 12 cannot be cut into 5"):
        score(cnn(), *batch, ["zico"], pieces=5)


def test_batch_norm_in_training_mode_means_micro_batches(batch):
    """A sample alone says nothing about a loss that its batch takes part in; the choice is made by itself."""
    auto, pieces, samples = (
        score(cnn(), *batch, ["zico"], pieces=4, unit=unit) for unit in ("auto", "microbatch", "sample")
    )
    assert_same(auto, pieces, "zico")
    assert auto["zico"] != samples["zico"]


# -- memory and windows --------------------------------------------------------------------------------------


def short_of_memory(monkeypatch, images: int) -> None:
    """Let every forward pass over more than `images` images fail as an allocator does."""
    forward = context.functional_call

    def failing(model, tensors, args):
        if len(args[0]) > images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.14 GiB.")
        return forward(model, tensors, args)

    def failing_by_hand(run, inputs, keep):
        return failing(None, None, (inputs,)) if len(inputs) > images else run_by_hand(run, inputs, keep)

    run_by_hand = Executor.forward
    monkeypatch.setattr(context, "functional_call", failing)
    monkeypatch.setattr(Executor, "forward", failing_by_hand)


@each
def test_a_batch_that_does_not_fit_is_split_and_gives_the_same_value(model, batch, all_of_it, monkeypatch, name):
    short_of_memory(monkeypatch, 6)
    card = sharp(model, batch, [name])
    assert_same(card, all_of_it, name, rel=1e-9)
    split = any("did not fit in memory" in warning for warning in card.warnings)
    assert split == (proxies.get(name).run.batch in ("data", "noise", "readout") and name != "meco")


@pytest.mark.parametrize("images", [4, 1])
def test_a_batch_is_split_into_smaller_parts(model, batch, all_of_it, monkeypatch, images):
    short_of_memory(monkeypatch, images)
    names = [name for name in NAMES if name != "ntk_cond" or images > 1]  # it needs two images at once
    assert_all_same(sharp(model, batch, names), all_of_it, names, rel=1e-9)
    if images == 1:
        with pytest.raises(LibranasError, match="does not fit in the memory"):
            sharp(model, batch, ["ntk_cond"])


def test_a_network_that_does_not_fit_is_named(batch, monkeypatch):
    short_of_memory(monkeypatch, 6)
    with pytest.raises(LibranasError, match=r"data pass does not fit in the memory of cpu: network with 5\d\d param"):
        score(cnn(), *batch, ["snip"], pieces=4)
    assert math.isfinite(score(cnn(), *batch, ["zico"], pieces=4)["zico"])  # micro-batches of 3 do fit
    # The ways out that the error names.
    assert math.isfinite(score(cnn(), *batch, ["snip"], mode="eval")["snip"])
    assert math.isfinite(score(cnn(), batch[0][:6], batch[1][:6], ["snip"], pieces=6)["snip"])


def test_another_error_is_not_taken_for_a_lack_of_memory(model, batch):
    model.head.register_forward_hook(lambda *_: torch.ones(2, 3) @ torch.ones(2, 3))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        score(model, *batch, ["snip"])


WINDOWED = [
    n for n in NAMES if {"layer", "activation"} & {a for axes in proxies.get(n).components.values() for a in axes}
]


@pytest.mark.parametrize("name", WINDOWED)
def test_a_window_gives_the_same_components_inside_and_none_outside(model, batch, all_of_it, name):
    low, high = 0.35, 0.8
    card = sharp(model, batch, [name], window=(low, high))
    found, whole = card.scores[name], all_of_it.scores[name]
    assert card.axes == all_of_it.axes and math.isfinite(found.value)
    for key, axes in proxies.get(name).components.items():
        inside = [(low <= np.array(card.axes[a].depth)) & (np.array(card.axes[a].depth) < high) for a in axes]
        mask = np.logical_and.outer(*inside) if len(axes) == 2 else inside[0]
        np.testing.assert_allclose(found.components[key][mask], whole.components[key][mask], rtol=1e-9, atol=1e-13)
        assert np.isnan(found.components[key][~mask]).all()


def test_no_work_is_done_before_a_window(model, batch):
    """The backward pass stops at the earliest layer that is looked at."""
    reached = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            module.register_full_backward_hook(lambda m, before, after, name=name: reached.append(name))
    axis = score(model, *batch, ["lswag"], window=(0.7, 1.0)).axes["layer"]
    first = next(i for i, depth in enumerate(axis.depth) if depth >= 0.7)
    assert set(reached) <= set(axis.names[first:]) and axis.names[-1] in reached
    reached.clear()
    score(model, *batch, ["lswag"])
    assert len(set(reached)) >= len(axis.names) - 2


def test_options_are_checked(model, batch):
    wrong = {"unit": "image", "pieces": 3, "precision": "bfloat16", "psi_samples": "all", "window": (1, 0)}
    for option, value in wrong.items():
        with pytest.raises(ValueError, match=option):
            score(model, *batch, ["snip"], **{option: value})
