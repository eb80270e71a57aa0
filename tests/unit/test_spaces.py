"""Search spaces: membership, edits, closed-form counts against built networks, sampling within a budget."""

import json
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from enumeration import counted, members
from hypothesis import given, settings
from hypothesis import strategies as st

from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.core.typed import setting
from libranas.networks import build
from libranas.networks.load import Wanted, model_of
from libranas.spaces import FAMILIES, AutoFormerSpace, Budget, Sampler, Space, SpaceFamily, make_space
from libranas.spaces.autoformer import PRESETS

quick = settings(derandomize=True)


def published(preset: str, **changes) -> AutoFormerSpace:
    return make_space({"family": "autoformer", "preset": preset, **changes}, 224, 3, 1000)


@st.composite
def spaces(draw):
    def choices(values):
        return tuple(draw(st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True)))

    patch = draw(st.sampled_from([2, 4]))
    head_dim = draw(st.sampled_from([2, 4, "auto"]))
    return AutoFormerSpace(
        embed_dim=choices([6, 12, 18] if head_dim == "auto" else [6, 8, 12, 15]),
        depth=choices([1, 2, 3]),
        num_heads=choices([1, 2, 3]),
        mlp_ratio=choices([1.0, 1.5, 2.0, 3.3]),
        head_dim=head_dim,
        image_size=patch * draw(st.integers(1, 3)),
        patch_size=patch,
        channels=draw(st.sampled_from([1, 3])),
        classes=draw(st.integers(2, 11)),
        relative_position=draw(st.booleans()),
        max_relative_position=draw(st.integers(1, 3)),
    )


seeds = st.integers(0, 2**32)

TINY = AutoFormerSpace((8, 12), (1, 2), (1, 2), (1.0, 2.0), head_dim=4, image_size=8, patch_size=4, classes=3)


# -- members -------------------------------------------------------------------------------------------------


@quick
@given(spaces(), seeds)
def test_samples_mutants_and_children_are_members(space, seed):
    rng = np.random.default_rng(seed)
    a, b = space.sample(rng), space.sample(rng)
    for arch in (a, b, space.mutate(a, rng), space.cross(a, b, rng), space.cross(b, a, rng), *space.extremes()):
        assert space.contains(arch)
        assert all(type(v) in (int, str, tuple) for v in arch.genes.values())


def test_parents_of_different_depth_have_legal_children_of_either_depth():
    a, b = TINY.arch(8, [1], [1.0]), TINY.arch(12, [2, 2], [2.0, 2.0])
    rng = np.random.default_rng(0)
    children = {TINY.cross(a, b, rng) for _ in range(300)}
    assert all(TINY.contains(c) for c in children)
    assert {c["depth"] for c in children} == {1, 2}
    assert {c["embed_dim"] for c in children} == {8, 12}
    # every gene is one of the parents', block by block; a block that only one has is that one's
    for c in children:
        blocks = list(zip(c["num_heads"], c["mlp_ratio"], strict=True))
        assert blocks[0] in {(1, 1.0), (2, 2.0)} and blocks[1:] in ([], [(2, 2.0)])
    assert len(children) == 8


@quick
@given(spaces(), seeds)
def test_a_child_takes_every_block_from_a_parent(space, seed):
    rng = np.random.default_rng(seed)
    a, b = space.sample(rng), space.sample(rng)
    child = space.cross(a, b, rng)
    for i in range(child["depth"]):
        genes = [(p["num_heads"][i], p["mlp_ratio"][i]) for p in (a, b) if i < p["depth"]]
        assert (child["num_heads"][i], child["mlp_ratio"][i]) in genes


def test_mutation_reaches_everything_and_keeps_most():
    start = TINY.arch(8, [1, 1], [1.0, 1.0])
    rng = np.random.default_rng(0)
    mutants = [TINY.mutate(start, rng) for _ in range(3000)]
    assert all(TINY.contains(m) for m in mutants)
    walk, arch = set(), start
    for _ in range(3000):
        arch = TINY.mutate(arch, rng)
        walk.add(arch.id)
    assert walk == {m.id for m in members(TINY)}
    deep = [m for m in mutants if m["depth"] == 2]
    changed = np.mean([[h != 1 for h in m["num_heads"]] for m in deep])
    assert changed == pytest.approx(TINY.P_BLOCK / 2, abs=0.02)  # half of the redraws give the old value
    assert np.mean([m["embed_dim"] != 8 for m in mutants]) == pytest.approx(TINY.P_GLOBAL / 2, abs=0.03)


def test_a_deeper_mutant_keeps_its_parents_blocks():
    space = AutoFormerSpace((8,), (1, 3), (1, 2, 3, 4, 5), (1.0,), head_dim=4, image_size=8, patch_size=4)
    start, rng = space.arch(8, [5], [1.0]), np.random.default_rng(1)
    deeper = [m for m in (space.mutate(start, rng) for _ in range(500)) if m["depth"] == 3]
    assert np.mean([m["num_heads"][0] == 5 for m in deeper]) > 0.75
    assert {m["num_heads"][2] for m in deeper} == {1, 2, 3, 4, 5}


@pytest.mark.parametrize(
    "change",
    [
        *({"embed_dim": 9}, {"embed_dim": (8,)}, {"depth": 1}, {"extra": 1}),
        *({"num_heads": (1,)}, {"num_heads": (1, 3)}, {"num_heads": 2}),
        *({"mlp_ratio": (1.0, 1.5)}, {"mlp_ratio": (1.0, 2.0, 2.0)}),
    ],
)
def test_strangers_are_no_members(change):
    arch = TINY.arch(8, [1, 2], [1.0, 2.0])
    assert TINY.contains(arch)
    assert not TINY.contains(arch.replace(**change))
    assert not TINY.contains(Arch("other", arch.genes))
    assert not TINY.contains(Arch("autoformer", {"embed_dim": 8}))


def test_sampling_is_uniform_over_depths_and_choices():
    rng = np.random.default_rng(0)
    found = [TINY.sample(rng) for _ in range(2000)]
    assert np.mean([a["depth"] == 1 for a in found]) == pytest.approx(0.5, abs=0.04)
    assert np.mean([a["num_heads"][0] == 1 for a in found]) == pytest.approx(0.5, abs=0.04)


# -- identity ------------------------------------------------------------------------------------------------


@quick
@given(spaces(), seeds)
def test_json_and_id_round_trip(space, seed):
    arch = space.sample(np.random.default_rng(seed))
    again = Arch.from_json(arch.json)
    assert again == arch and hash(again) == hash(arch) and again.id == arch.id and space.contains(again)
    shuffled = json.dumps(dict(reversed(json.loads(arch.json).items())), indent=3)
    assert Arch.from_json(shuffled).id == arch.id


def test_an_id_is_the_same_everywhere_and_for_ever():
    arch = TINY.arch(np.int64(8), np.array([1, 2]), [1, np.float64(2)])
    assert arch.json == '{"depth":2,"embed_dim":8,"family":"autoformer","mlp_ratio":[1.0,2.0],"num_heads":[1,2]}'
    assert arch.id == "9fee0cea8f55"


def test_numbers_written_otherwise_are_one_architecture():
    """JSON does not tell 2 from 2.0, other people's tables mix them."""
    arch = TINY.arch(8, [1, 2], [1.0, 2.0])
    other = Arch.from_json(arch.json.replace("2.0", "2"))
    assert other.id != arch.id and TINY.contains(other)
    assert TINY.canonical(other) == arch == TINY.canonical(arch)


RETRAIN = """
SUPERNET: {MLP_RATIO: 2.0, NUM_HEADS: 2, EMBED_DIM: 12, DEPTH: 2}
SEARCH_SPACE: {MLP_RATIO: [1.0, 2.0], NUM_HEADS: [1, 2], DEPTH: [1, 2], EMBED_DIM: [8, 12]}
RETRAIN:
  MLP_RATIO: [1.0, 2]
  NUM_HEADS:
    - 1
    - 2
  DEPTH: 2
  EMBED_DIM: 8
"""


@pytest.mark.parametrize(
    "text",
    [
        RETRAIN,
        RETRAIN.partition("RETRAIN:")[2],
        '{"layer_num": 2, "mlp_ratio": [1, 2.0], "num_heads": [1, 2], "embed_dim": [8, 8], "num_params": 0.1}',
        '{"arch": {"hidden_dim": 8, "mlp_ratio": [1.0, 2.0], "depth": 2, "num_heads": [1, 2]}, "c100_base_acc": 68.6}',
        '{"embed_dim": 8, "depth": 2, "num_heads": [1, 2], "mlp_ratio": [1.0, 2.0]}',
    ],
)
def test_networks_as_others_write_them(text):
    assert TINY.parse(text) == TINY.arch(8, [1, 2], [1.0, 2.0])


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "nan", "a: b: c", RETRAIN.replace("EMBED_DIM: 8", ""),
        RETRAIN.replace("DEPTH: 2\n  E", "DEPTH: 1\n  E"),
        '{"layer_num": 2, "mlp_ratio": [1, 2.0], "num_heads": [1, 2], "embed_dim": [8, 12]}',
        '{"family": "pit", "embed_dim": 8, "depth": 2, "num_heads": [1, 2], "mlp_ratio": [1.0, 2.0]}',
        '{"embed_dim": 8, "depth": 2, "num_heads": ["1", 2], "mlp_ratio": [1.0, 2.0]}',
        '{"embed_dim": 8, "depth": 2, "num_heads": [1.5, 2], "mlp_ratio": [1.0, 2.0]}',
        '{"embed_dim": 8, "depth": 2, "num_heads": [1, 2], "mlp_ratio": [1.0, 2.0], "kernel": 3}',
    ],
)  # fmt: skip
def test_texts_that_are_no_member(text):
    with pytest.raises(LibranasError, match="is not a member of the space"):
        TINY.parse(text)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"embed_dim": 3}', '{"family": "x", "a": {"b": 1}}', "nan"])
def test_what_is_no_architecture_is_shown(text):
    with pytest.raises(LibranasError, match="Not an architecture"):
        Arch.from_json(text)


def test_an_architecture_cannot_be_changed():
    arch = TINY.arch(8, [1], [1.0])
    with pytest.raises(AttributeError):
        arch.family = "x"
    assert arch.replace(embed_dim=12)["embed_dim"] == 12 and arch["embed_dim"] == 8


# -- counts --------------------------------------------------------------------------------------------------


@settings(derandomize=True)
@given(spaces(), seeds)
def test_closed_forms_count_the_built_network(space, seed):
    arch = space.sample(np.random.default_rng(seed))
    assert (space.params(arch), space.macs(arch)) == counted(space, arch)


@pytest.mark.parametrize("preset", PRESETS)
def test_closed_forms_count_the_networks_of_every_preset(preset):
    """The largest member and a random one, at the size that the preset is for; no weight is made."""
    size = int(preset[5:7]) if preset.startswith("image") else 8 if preset.startswith("digits") else 224
    space = make_space({"family": "autoformer", "preset": preset}, size, 3, 1000)
    for arch in (space.extremes()[1], space.sample(np.random.default_rng(0))):
        assert (space.params(arch), space.macs(arch)) == counted(space, arch)


def test_published_networks_have_their_published_sizes(shared_dir):
    """Those of AutoFormer, TF-TAS and AZ-NAS; the built network too."""
    entries = json.loads((shared_dir / "data" / "published_vits.json").read_text())
    kinds = {"T": "tiny", "S": "small", "B": "base"}
    for entry in entries:
        space = published(kinds[entry["name"].split("(")[0].strip().rsplit("-", 1)[-1]])
        arch = space.arch(entry["embed_dim"], entry["num_heads"], entry["mlp_ratio"])
        assert arch["depth"] == entry["depth"] and space.contains(arch), entry["name"]
        assert space.params(arch) == entry["params"], entry["name"]
        assert (space.params(arch), space.macs(arch)) == counted(space, arch), entry["name"]
    assert len(entries) == 12


def test_every_network_of_vit_bench_101_is_read(shared_dir):
    rows = json.loads((shared_dir / "data" / "vit_bench_101" / "autoformer_tiny_set1.json").read_text())
    space = make_space({"family": "autoformer", "preset": "vit-bench-101"}, 224, 3, 100)
    archs = [space.parse(json.dumps(row)) for row in rows]
    assert len({a.id for a in archs}) == len(rows) == 100
    for arch, row in zip(archs, rows, strict=True):
        theirs = dict(row["arch"])
        theirs["embed_dim"] = theirs.pop("hidden_dim")
        assert {gene: json.loads(json.dumps(arch[gene])) for gene in arch.genes} == theirs
        assert space.parse(json.dumps(row["arch"])) == arch == space.parse(space.format(arch))
    assert space.params(space.arch(192, [3] * 12, [4.0] * 12)) == space.params(space.arch(192, [4] * 12, [4.0] * 12))


@quick
@given(spaces())
def test_extremes_bound_all_members(space):
    """Fewer heads are fewer parameters where each has a fixed width, but more (wider tables) where they share it."""
    smallest, largest = space.extremes()
    for count in (space.params, space.macs):
        values = [count(a) for a in members(space)]
        assert (count(smallest), count(largest)) == (min(values), max(values))


def test_a_budget_at_the_edge_of_a_space_whose_heads_share_the_width_is_feasible():
    space = published("tiny", head_dim="auto")
    low, high = space.arch(192, [4] * 12, [3.0] * 12), space.arch(240, [3] * 14, [4.0] * 14)
    assert (space.params(low), space.params(high)) == (4_899_496, 10_328_440)
    for arch in (low, high):
        Budget(params=(space.params(arch), space.params(arch))).check(space)
    with pytest.raises(LibranasError, match="reaches 4899496 to 10328440 params"):
        Budget(params=(1, space.params(low) - 1)).check(space)


def test_size_counts_the_members():
    assert TINY.size() == len({a.id for a in members(TINY)}) == 2 * (4 + 16)
    sizes = {"tiny": 2.8e11, "tiny-paper": 1.06e9, "small": 7.7e13, "base": 1.0e13, "base-paper": 6.2e15}
    for preset, size in sizes.items():
        assert published(preset).size() == pytest.approx(size, rel=0.02), preset


# -- settings ------------------------------------------------------------------------------------------------


def test_presets_can_be_changed_one_choice_at_a_time():
    space = published("tiny", depth=[4], head_dim=None)
    assert space.depth == (4,) and list(space.embed_dim) == PRESETS["tiny"]["embed_dim"] and space.head_dim == 64
    assert make_space({"family": "autoformer", "preset": "tiny"}, 224, 3, 10).classes == 10


def test_the_default_experiment_is_the_space_that_it_was():
    """By its values, whatever the preset calls them: scores and records hang on them."""
    space = make_space({"family": "autoformer", "preset": "digits-autoformer"}, 8, 1, 10)
    assert space == AutoFormerSpace(
        (32, 48, 64), (3, 4, 5), (2, 3, 4), (2.0, 3.0, 4.0), 16, 8, 2, 1, 10, True, 3, init_std=0.1
    )
    assert space.size() == 199_017


def test_presets_for_small_images_reach_every_offset_and_no_further():
    for size, patch in product((32, 64), (2, 4, 8)):
        space = make_space({"family": "autoformer", "preset": f"image{size}-patch{patch}"}, size, 3, 10)
        assert space.tokens(space.extremes()[0]) == (size // patch) ** 2 + 1 and space.relative_position
        assert space.max_relative_position == min(14, size // patch - 1)


def test_choices_are_a_set():
    assert AutoFormerSpace((12, 8, 8), (2, 1, 2), (1,), (1.0,)) == AutoFormerSpace((8, 12), (1, 2), (1,), (1.0,))


def test_settings_that_do_not_make_a_space():
    with pytest.raises(LibranasError, match="no choices for num_heads, mlp_ratio"):
        make_space({"family": "autoformer", "embed_dim": [8], "depth": [1]}, 8, 1, 2)
    with pytest.raises(LibranasError, match=r"space.family is 'resnet'(.|\n)*autoformer"):
        make_space({"family": "resnet"}, 8, 1, 2)
    with pytest.raises(LibranasError, match=r"num_heads 3 does not divide space.embed_dim 8, but .*head_dim is auto"):
        AutoFormerSpace((8,), (1,), (2, 3), (1.0,), head_dim="auto")
    with pytest.raises(LibranasError, match=r"mlp_ratio 0.1: an MLP of blocks 8 wide has no unit"):
        AutoFormerSpace((8,), (1,), (1,), (0.1, 2.0))
    with pytest.raises(LibranasError, match=r"patch_size 3 does not divide data.image_size 8"):
        AutoFormerSpace((8,), (1,), (1,), (1.0,), image_size=8, patch_size=3)


# -- budgets -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["params", "macs"])
def test_an_infeasible_budget_names_what_is_feasible(kind):
    low, high = (getattr(TINY, kind)(a) for a in TINY.extremes())
    for window in ((1, low - 1), (high + 1, 10**9), (high, low)):
        with pytest.raises(LibranasError, match=rf"budget.{kind} \[{window[0]}, .*{low} to {high}") as caught:
            Sampler(TINY, Budget(**{kind: window}), np.random.default_rng(0))
        assert f"[{low}, {high}]" in caught.value.todo
    Budget(**{kind: (low, low)}).check(TINY)


def test_a_larger_sample_begins_with_the_smaller_one():
    few, many = (Sampler(TINY, Budget(), np.random.default_rng(3)).take(count) for count in (5, 9))
    assert many[:5] == few


def test_samples_lie_in_the_budget_and_never_come_twice():
    budget = Budget(params=(1500, 2600), macs=(4000, 12000))
    inside = {a.id for a in members(TINY) if budget.admits(TINY, a)}
    assert 3 < len(inside) < TINY.size()
    found = Sampler(TINY, budget, np.random.default_rng(0)).take(len(inside))
    assert {a.id for a in found} == inside


def test_a_window_that_is_used_up_ends_in_an_error(monkeypatch):
    monkeypatch.setattr(Sampler, "PATIENCE", 2000)
    with pytest.raises(LibranasError, match=f"Found only {TINY.size()} different architectures"):
        Sampler(TINY, Budget(), np.random.default_rng(0)).take(TINY.size() + 1)


def test_a_window_between_two_sizes_ends_in_an_error(monkeypatch):
    monkeypatch.setattr(Sampler, "PATIENCE", 500)
    sizes = sorted({TINY.params(a) for a in members(TINY)})
    low, high = max(pairwise(sizes), key=lambda pair: pair[1] - pair[0])
    with pytest.raises(LibranasError, match=r"Found only 0 .*the last outside had \d+ params") as caught:
        next(Sampler(TINY, Budget(params=(low + 1, high - 1)), np.random.default_rng(0)))
    assert "Widen the budget" in caught.value.todo


def test_excluded_architectures_are_not_drawn():
    everything = list(members(TINY))
    rest = Sampler(TINY, Budget(), np.random.default_rng(0), exclude={a.id for a in everything[:-3]}).take(3)
    assert {a.id for a in rest} == {a.id for a in everything[-3:]}


def test_a_budget_from_settings():
    assert Budget.from_settings({"params": [1, 2], "macs": None}) == Budget((1, 2), None)
    assert Budget.from_settings({}) == Budget()


# -- a space of another package --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Widths(Space):
    """Perceptrons with one hidden layer."""

    image_size: int
    channels: int
    classes: int
    most: int = setting("Most units.", default=8)

    family = "widths"

    def arch(self, width: int) -> Arch:
        return Arch(self.family, {"width": int(width)})

    def sample(self, rng):
        return self.arch(rng.integers(1, self.most + 1))

    def contains(self, arch):
        return arch.family == self.family and set(arch.genes) == {"width"} and 1 <= arch["width"] <= self.most

    def extremes(self):
        return self.arch(1), self.arch(self.most)

    def params(self, arch):
        return self.macs(arch) + arch["width"] + self.classes

    def macs(self, arch):
        return arch["width"] * (self.channels * self.image_size**2 + self.classes)


def perceptron(space: Widths, arch: Arch) -> torch.nn.Module:
    inputs = space.channels * space.image_size**2
    layers = torch.nn.Linear(inputs, arch["width"]), torch.nn.ReLU(), torch.nn.Linear(arch["width"], space.classes)
    return torch.nn.Sequential(torch.nn.Flatten(), *layers)


@pytest.fixture
def widths():
    FAMILIES.add(SpaceFamily(Widths, network=perceptron, image_size=4))
    yield make_space({"family": "widths", "most": 3}, 4, 1, 2)
    FAMILIES.remove("widths")


def test_a_new_space_is_one_record(widths):
    with pytest.raises(LibranasError, match=r"space.most: expected a whole number or null, got 2.5"):
        make_space({"family": "widths", "most": 2.5}, 4, 1, 2)
    archs = Sampler(widths, Budget(params=(1, 45)), np.random.default_rng(0)).take(2)
    assert {a["width"] for a in archs} == {1, 2} and widths.parse(widths.format(archs[0])) == archs[0]
    net = build(widths, archs[0], seed=0)
    assert sum(p.numel() for p in net.parameters()) == widths.params(archs[0])
    assert torch.equal(net[1].weight, build(widths, archs[0], seed=0)[1].weight)
    model, size, channels = model_of('widths:{"family":"widths","width":2}', Wanted(classes=2, channels=1))
    assert model[1].out_features == 2 and (size, channels) == (4, 1)


def test_what_a_new_space_lacks_is_said(widths):
    with pytest.raises(LibranasError, match=r"space.least: unknown key; known keys: most"):
        make_space({"family": "widths", "least": 1}, 4, 1, 2)
    with pytest.raises(LibranasError, match=r"is not a member of the space(.|\n)*Widths\("):
        widths.parse('{"family":"widths","width":4}')
    with pytest.raises(LibranasError, match=r"widths cannot be looked up(.|\n)*autoformer, pit"):
        FAMILIES["widths"].parts()
    with pytest.raises(LibranasError, match="no stochastic depth"):
        build(widths, widths.arch(1), seed=0, drop_path_rate=0.1)
