"""The PiT space: members, closed forms against built networks, the published tables, and timm's features."""

import json

import numpy as np
import pytest
import timm
import torch
from enumeration import counted, members
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.pit import PoolingVisionTransformer

import libranas.networks.timm_models  # noqa: F401 - registers the networks with timm
from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.networks import build
from libranas.networks.initial_weights import drawing
from libranas.networks.pit import model_args
from libranas.spaces import Budget, PiTSpace, Sampler, make_space
from libranas.zero_cost import registry as proxies
from libranas.zero_cost import score as engine

SPACE = PiTSpace((4, 6), (1.5, 2.0), ((1,), (1, 2), (1,)), (1, 2), image_size=16, patch_size=4, channels=3, classes=5)
ARCH = SPACE.arch(6, 1.5, (1, 2, 1), (1, 2, 2))


@pytest.fixture
def model():
    return build(SPACE, ARCH, seed=1).eval()


@pytest.fixture
def images():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


# -- members -------------------------------------------------------------------------------------------------


def test_the_members_are_those_of_the_choices_with_heads_that_multiply():
    everything = list(members(SPACE))
    assert len({a.id for a in everything}) == SPACE.size() == 2 * 2 * 2 * 4
    assert {a["num_heads"] for a in everything} == {(1, 1, 1), (1, 1, 2), (1, 2, 2), (2, 2, 2)}
    assert all(SPACE.contains(a) for a in everything)
    assert PiTSpace().size() == 4 * 4 * 27 * 10


def test_sampling_mutation_and_crossover_stay_inside_and_reach_everything():
    rng = np.random.default_rng(0)
    everything = {a.id for a in members(SPACE)}
    assert {SPACE.sample(rng).id for _ in range(1000)} == everything
    walk, arch = set(), ARCH
    for _ in range(2000):
        arch = SPACE.mutate(arch, rng)
        walk.add(arch.id)
    assert walk == everything
    a, b = SPACE.arch(4, 1.5, (1, 1, 1), (1, 1, 2)), SPACE.arch(6, 2.0, (1, 2, 1), (2, 2, 2))
    children = {SPACE.cross(a, b, rng) for _ in range(500)}
    assert len(children) == 2**4 and all(SPACE.contains(c) for c in children)
    for child in children:
        assert all(child[gene] in (a[gene], b[gene]) for gene in a.genes)


def test_mutation_keeps_most():
    rng = np.random.default_rng(0)
    mutants = [SPACE.mutate(ARCH, rng) for _ in range(3000)]
    assert np.mean([m["base_dim"] != 6 for m in mutants]) == pytest.approx(SPACE.P_GENE / 2, abs=0.03)
    assert np.mean([m["num_heads"] != (1, 2, 2) for m in mutants]) == pytest.approx(SPACE.P_GENE * 3 / 4, abs=0.03)


@pytest.mark.parametrize(
    "change",
    [
        *({"base_dim": 5}, {"base_dim": (4, 6)}, {"mlp_ratio": 3.0}, {"extra": 1}),
        *({"depth": (1, 2)}, {"depth": (2, 2, 1)}, {"depth": 4}, {"num_heads": (2, 1, 1)}, {"num_heads": (1, 2)}),
    ],
)
def test_strangers_are_no_members(change):
    assert SPACE.contains(ARCH) and not SPACE.contains(ARCH.replace(**change))
    with pytest.raises(LibranasError, match="not a member"):
        SPACE.parse(ARCH.replace(**change).json)
    assert not SPACE.contains(Arch("autoformer", ARCH.genes))


def test_an_id_is_the_same_everywhere_and_for_ever():
    assert ARCH.json == '{"base_dim":6,"depth":[1,2,1],"family":"pit","mlp_ratio":1.5,"num_heads":[1,2,2]}'
    assert ARCH.id == "815ad3098fff"
    assert SPACE.parse(SPACE.format(ARCH)) == ARCH


def test_features_tell_all_members_apart():
    found = [SPACE.features(a) for a in members(SPACE)]
    assert len({tuple(f.values()) for f in found}) == len(found)


def test_settings_that_do_not_make_a_space():
    with pytest.raises(LibranasError, match=r"space.stage_depth: expected a list of 3, got"):
        make_space({"family": "pit", "stage_depth": [[1], [2]]}, 32, 3, 10)
    with pytest.raises(LibranasError, match=r"patch_size 16 is larger than data.image_size 8"):
        make_space({"family": "pit"}, 8, 3, 10)
    assert make_space({"family": "pit", "patch_size": 4, "stride": None}, 32, 3, 10).stride == 2


# -- counts --------------------------------------------------------------------------------------------------


@settings(derandomize=True)
@given(st.integers(0, 99), st.integers(2, 5), st.integers(1, 4), st.integers(0, 20), st.sampled_from([1, 3]))
def test_closed_forms_count_the_built_network(seed, patch, stride, more, channels):
    space = PiTSpace(
        (3, 4), (1.3, 2.0), ((1, 2), (1,), (1, 2)), (1, 2, 4), patch + more, patch, stride, channels, classes=7
    )
    arch = space.sample(np.random.default_rng(seed))
    assert (space.params(arch), space.macs(arch)) == counted(space, arch)


@pytest.mark.parametrize(
    ("name", "genes"),
    [
        ("pit_ti_224", (32, 4, (2, 6, 4), (2, 4, 8))),
        ("pit_xs_224", (48, 4, (2, 6, 4), (2, 4, 8))),
        ("pit_s_224", (48, 4, (2, 6, 4), (3, 6, 12))),
    ],
)
def test_the_papers_networks_have_the_sizes_of_timms(name, genes):
    space = PiTSpace((32, 48), (4.0,), ((2,), (6,), (4,)), (2, 3, 4, 6, 8, 12))
    with torch.device("meta"):
        theirs = timm.create_model(name)
    assert space.params(space.arch(*genes)) == sum(p.numel() for p in theirs.parameters())


def test_extremes_bound_all_members():
    for count in (SPACE.params, SPACE.macs):
        values = [count(a) for a in members(SPACE)]
        assert tuple(map(count, SPACE.extremes())) == (min(values), max(values))
    budget = Budget(params=(SPACE.params(ARCH), SPACE.params(ARCH)))
    assert next(Sampler(SPACE, budget, np.random.default_rng(0)))["num_heads"] == ARCH["num_heads"]


# -- published -----------------------------------------------------------------------------------------------


def test_every_published_network_is_read(shared_dir):
    space = PiTSpace(classes=100)
    rows = json.loads((shared_dir / "data" / "vit_bench_101" / "pit.json").read_text())
    archs = [space.parse(json.dumps(row)) for row in rows]
    assert len({a.id for a in archs}) == len(rows) == 100
    for arch, row in zip(archs, rows, strict=True):
        assert {gene: json.loads(json.dumps(arch[gene])) for gene in arch.genes} == row["arch"]
    for arch in archs[::25]:
        assert (space.params(arch), space.macs(arch)) == counted(space, arch)


# -- the network ---------------------------------------------------------------------------------------------


def test_it_is_timms_network(model, images):
    theirs = PoolingVisionTransformer(16, 4, 2, base_dims=[6] * 3, depth=[1, 2, 1], heads=[1, 2, 2], mlp_ratio=1.5,
                                      num_classes=5).eval()  # fmt: skip
    theirs.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(images), theirs(images))
    with drawing(1):
        fresh = timm.create_model("libranas_pit", **model_args(SPACE, ARCH))
    assert all(torch.equal(a, b) for a, b in zip(fresh.state_dict().values(), model.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", proxies.list_proxies())
def test_every_proxy_scores_it(model, name):
    inputs = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    card = engine.score(model, inputs, torch.arange(8) % 5, [name], reg_swap=(20.0, 400.0))
    assert np.isfinite(card[name]), card.scores[name].reason


def test_primary_blocks_are_those_of_all_stages(model):
    inputs = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    card = engine.score(model, inputs, torch.arange(4), ["az_trainability"])
    blocks = ("0.blocks.0", "1.blocks.0", "1.blocks.1", "2.blocks.0")
    assert card.axes["feature"].names == tuple(f"transformers.{b}.after_{s}" for b in blocks for s in ("attn", "mlp"))
    pools = np.isnan(card.scores["az_trainability"].components["per_feature"])
    assert pools.tolist() == [True, False, True, False, False, False, True, False]  # no predecessor, or pooled tokens


def test_features_only(images):
    net = timm.create_model("libranas_pit", **model_args(SPACE, ARCH), features_only=True, out_indices=(0, 2)).eval()
    assert [f.shape for f in net(images)] == [(2, 6, 7, 7), (2, 12, 2, 2)]
    assert net.feature_info.channels() == [6, 12]


def test_another_classifier_and_another_input_size(model, images):
    before = model(images)
    model.reset_classifier(7)
    assert model(images).shape == (2, 7)
    model.reset_classifier(0)
    assert model(images).shape == (2, 12)
    model = build(SPACE, ARCH, seed=1).eval()
    model.set_input_size((20, 24))
    assert model.pos_embed.shape == (1, 6, 9, 11) and model(torch.zeros(1, 3, 20, 24)).shape == (1, 5)
    flat = build(SPACE, ARCH, seed=1).eval()
    with torch.no_grad():
        flat.pos_embed.fill_(0.5)
    flat.set_input_size(24)
    torch.testing.assert_close(flat.pos_embed, torch.full((1, 6, 11, 11), 0.5))
    flat.set_input_size(16)
    assert flat(images).shape == before.shape
