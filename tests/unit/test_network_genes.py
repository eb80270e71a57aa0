"""Genes of a whole vision transformer: patches, pooling, stem, positions, MLP, norms and scales."""

import json
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
import yaml
from enumeration import counted, members
from timm.layers import SwiGLUPacked
from torch import nn

import libranas
from libranas.core.errors import LibranasError
from libranas.labels.supernet import Supernet
from libranas.latency import measure as latency
from libranas.latency.table import Latency, LatencyTable
from libranas.networks import build
from libranas.networks.autoformer import model_args
from libranas.report.search_figures import drawings
from libranas.spaces import AutoFormerSpace, make_space
from libranas.spaces.autoformer import NETWORK_GENES, conv_stem, mlp_width
from libranas.spaces.file_formats import network_space, networks_table, one_network, yaml_text

GENES = {
    "patch_size": (1, 2, 4),
    "pool": ("avg", "token"),
    "stem": ("conv", "linear"),
    "position": ("absolute", "both", "relative", "sincos"),
    "mlp": ("gelu", "swiglu"),
    "qk_norm": (False, True),
    "layer_scale": (False, True),
}
PLAIN = AutoFormerSpace((8, 12), (1, 2), (1, 2), (0.5, 2.0), "auto", 8, 2, 1, 3, False, 2, "auto")
WIDE = replace(PLAIN, **GENES)
each_gene = pytest.mark.parametrize(("gene", "value"), [(gene, v) for gene, values in GENES.items() for v in values])


def images(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def some(count: int = 40) -> list:
    rng = np.random.default_rng(0)
    return [WIDE.sample(rng) for _ in range(count)]


def test_a_gene_with_one_choice_is_none_of_an_architecture():
    one = replace(PLAIN, **{gene: (getattr(PLAIN, gene),) for gene in NETWORK_GENES if gene != "position"})
    assert one == PLAIN and repr(one) == repr(PLAIN) and PLAIN.free == {} and "pool" not in repr(PLAIN)
    assert set(PLAIN.sample(np.random.default_rng(0)).genes) == {"embed_dim", "depth", "num_heads", "mlp_ratio"}
    assert WIDE.free == GENES and set(some(1)[0].genes) == {"embed_dim", "depth", "num_heads", "mlp_ratio", *GENES}
    assert WIDE.size() == PLAIN.size() * 3 * 2 * 2 * 4 * 2 * 2 * 2


def test_relative_position_is_short_for_a_position():
    for true, name in ((True, "both"), (False, "absolute")):
        assert replace(PLAIN, relative_position=true) == replace(PLAIN, position=name)
        assert replace(PLAIN, relative_position=true).choices("position") == (name,)
    image = {"family": "autoformer", "preset": "image32"}
    assert make_space(image | {"relative_position": False}, 32, 3, 10).choices("position") == ("absolute",)
    assert make_space(image, 32, 3, 10).relative_position


def test_every_choice_is_drawn_mutated_and_crossed():
    rng, archs = np.random.default_rng(0), some(200)
    for made in (archs, [WIDE.mutate(a, rng) for a in archs], [WIDE.cross(a, archs[0], rng) for a in archs]):
        assert all(WIDE.contains(arch) for arch in made)
        for gene, choices in GENES.items():
            assert {arch[gene] for arch in made} == set(choices)
    child = WIDE.cross(archs[0], archs[1], rng)
    assert all(child[gene] in (archs[0][gene], archs[1][gene]) for gene in GENES)
    changed = np.mean([WIDE.mutate(a, rng)["pool"] != a["pool"] for a in archs * 5])
    assert changed == pytest.approx(WIDE.P_GLOBAL / 2, abs=0.05)


def test_a_gene_that_is_missing_or_no_choice():
    arch = some(1)[0]
    assert not WIDE.contains(arch.replace(pool="max")) and not PLAIN.contains(arch)
    with pytest.raises(KeyError, match="pool"):
        WIDE.arch(8, [1], [2.0], patch_size=1)
    with pytest.raises(ValueError):
        WIDE.arch(8, [1], [2.0], **{gene: values[0] for gene, values in GENES.items()} | {"pool": "max"})
    assert WIDE.canonical(arch.replace(qk_norm=int(arch["qk_norm"]))) == arch


def test_a_stated_gene_that_the_space_fixes_is_read():
    genes = {"embed_dim": 8, "depth": 1, "num_heads": [1], "mlp_ratio": [2.0], "pool": "avg", "patch_size": 16}
    assert PLAIN.parse(json.dumps(genes)) == PLAIN.arch(8, [1], [2.0])
    with pytest.raises(LibranasError, match="not a member"):
        PLAIN.parse(json.dumps(genes | {"pool": "token"}))


def test_extremes_bound_all_members_of_all_genes():
    space = replace(WIDE, embed_dim=(4, 8), num_heads=(1, 2), depth=(1, 2), mlp_ratio=(0.5, 2.0), pool="avg")
    archs = [a for a in members(replace(space, layer_scale=False, qk_norm=False))]
    smaller = replace(space, layer_scale=False, qk_norm=False)
    for count in (smaller.params, smaller.macs):
        values, extremes = [count(a) for a in archs], [count(a) for a in smaller.extremes()]
        assert (min(values), max(values)) == (min(extremes), max(extremes))


@each_gene
def test_closed_forms_count_every_gene(gene, value):
    space = replace(PLAIN, **{gene: value})
    for arch in space.extremes():
        assert (space.params(arch), space.macs(arch)) == counted(space, arch)


def test_closed_forms_count_all_genes_together():
    for arch in some():
        assert (WIDE.params(arch), WIDE.macs(arch)) == counted(WIDE, arch)


@pytest.mark.parametrize("patch", [1, 2, 3, 4, 6, 8, 14, 16])
def test_a_stem_makes_the_grid_of_the_patches(patch):
    convolutions, last = conv_stem(patch, 16)
    assert np.prod([stride for _, stride in convolutions]) * last == patch and convolutions[-1][0] == 16
    space = replace(PLAIN, embed_dim=(16,), stem="conv", patch_size=patch, image_size=2 * patch)
    net = build(space, space.extremes()[0], 0).eval()
    x = torch.randn(3, 1, 2 * patch, 2 * patch)
    assert net.patch_embed(x).shape == (3, 4, 16)
    torch.testing.assert_close(net(x)[:1], net(x[:1]))  # no image depends on another


def test_a_gated_mlp_has_about_as_many_parameters():
    for ratio in (0.5, 1.0, 3.0, 4.0):
        gelu, gated = (mlp_width(96, ratio, mlp) for mlp in ("gelu", "swiglu"))
        assert 3 * 96 * gated == pytest.approx(2 * 96 * gelu, rel=0.02)
    assert mlp_width(2, 0.5, "swiglu") == 1


@pytest.mark.parametrize("mlp", ["gelu", "swiglu"])
@pytest.mark.parametrize("more", [False, True], ids=["plain", "norms and scales"])
def test_the_network_is_timms_own(mlp, more):
    space = replace(PLAIN, pool="token", mlp=mlp, qk_norm=more, layer_scale=more)
    ours = build(space, space.arch(12, [2, 2], [2.0, 2.0]), 0).eval()
    hidden = 24 if mlp == "gelu" else 32  # timm counts both halves
    theirs = timm.models.vision_transformer.VisionTransformer(
        img_size=8, patch_size=2, in_chans=1, num_classes=3, embed_dim=12, depth=2, num_heads=2, mlp_ratio=hidden / 12,
        qk_norm=more, init_values=1e-5 if more else None, norm_layer=lambda *a, **k: nn.LayerNorm(*a, eps=1e-5),
        **({"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU} if mlp == "swiglu" else {}),
    ).eval()  # fmt: skip
    if more:
        torch.testing.assert_close(ours.blocks[0].ls1.gamma, theirs.blocks[0].ls1.gamma)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(images()), theirs(images()))


def test_the_classifier_sees_the_class_token():
    space = replace(PLAIN, pool="token")
    net = build(space, space.extremes()[1], 0).eval()
    torch.testing.assert_close(net(images()), net.head(net.forward_features(images())[:, 0]))


def test_fixed_positions_follow_the_grid():
    space = replace(PLAIN, position="sincos")
    net = build(space, space.extremes()[1], 0).eval()
    assert not [name for name in net.state_dict() if "pos_embed" in name]
    assert not net.pos_embed[:, 0].any() and len(net.pos_embed[0].unique(dim=0)) == 17
    before = net(images())
    net.set_input_size(img_size=(8, 12))
    assert net.pos_embed.shape == (1, 25, 12) and net(torch.zeros(1, 1, 8, 12)).shape == (1, 3)
    net.set_input_size(img_size=8)
    torch.testing.assert_close(net(images()), before)
    with pytest.raises(LibranasError, match="embed_dim 6 is no multiple of 4"):
        replace(space, embed_dim=(6,), num_heads=(1,))


def test_initial_weights_may_follow_the_width():
    for width in (8, 12):
        net = build(PLAIN, PLAIN.arch(width, [1, 1], [2.0, 2.0]), 0)
        weights = torch.cat([m.weight.flatten() for m in net.modules() if isinstance(m, nn.Linear)])
        assert weights.std().item() == pytest.approx(width**-0.5, rel=0.1)


@each_gene
def test_timm_takes_features_out_of_it(gene, value):
    space = replace(PLAIN, **{gene: value})
    arch = space.arch(12, [1, 2], [2.0, 0.5])
    assert build(space, arch, 0, timm=True)(images()).shape == (4, 3)
    net = timm.create_model("libranas_autoformer", **model_args(space, arch), features_only=True, out_indices=(0, 1))
    side = 8 // space.patch_size
    assert [f.shape for f in net(images())] == [(4, 12, side, side)] * 2


@each_gene
def test_it_is_scored(gene, value):
    space = replace(PLAIN, **{gene: value})
    net = build(space, space.arch(12, [1, 2], [2.0, 2.0]), 0)
    names = ["lswag", "zico", "gradsign", "nwot", "swap", "synflow", "az_trainability", "meco", "grad_norm"]
    card = libranas.score(net, images(8), torch.arange(8) % 3, names)
    assert all(np.isfinite(card[name]) for name in names), {name: card.scores[name] for name in names}


def test_files_hold_every_gene():
    for arch in some(10):
        content = yaml.safe_load(yaml_text(WIDE, arch))
        again = network_space(content, {})
        assert again == WIDE and one_network(content, again, "file") == arch
        assert WIDE.parse(WIDE.format(arch)) == arch and WIDE.parse(yaml_text(WIDE, arch)) == arch
    listed = [json.loads(arch.json) for arch in some()]
    space = network_space(listed, {"head_dim": "auto"}, 8, 1, 3)
    assert space.free == GENES and networks_table(listed, space)["architecture"].tolist() == [a.json for a in some()]


def test_features_mark_the_choices():
    arch = some(1)[0]
    arch = WIDE.canonical(arch.replace(patch_size=4, pool="token", position="sincos", qk_norm=True))
    found = WIDE.features(arch)
    assert (found["patch_size_log2"], found["tokens"], found["pool_token"], found["qk_norm_true"]) == (2, 5, 1, 1)
    assert (found["position_both"], found["position_sincos"]) == (0, 1)
    assert "tokens" not in PLAIN.features(PLAIN.extremes()[0])


def test_a_table_of_latencies_tells_the_genes_apart(tmp_path):
    space = replace(PLAIN, **{gene: choices[-2:] for gene, choices in GENES.items()})

    def true(arch) -> float:
        tokens = space.tokens(arch)
        each = 0.3 * (arch["mlp"] == "swiglu") + 0.2 * arch["qk_norm"] + 0.1 * arch["layer_scale"]
        each += tokens / 20 * (arch["position"] == "relative")
        block = [h + tokens * r * arch["embed_dim"] / 100 + each for h, r in
                 zip(arch["num_heads"], arch["mlp_ratio"], strict=True)]  # fmt: skip
        return 3 + tokens / 10 + 0.2 * (arch["pool"] == "token") + 0.5 * (arch["stem"] == "conv") + sum(block)

    table, checked = latency.measure(space, lambda _, archs: [Latency(*[true(a)] * 3) for a in archs], 10, seed=1)
    assert checked["worst_error"] < 1e-9
    (tmp_path / "table.json").write_text(json.dumps(table.to_dict()))
    assert LatencyTable.read(tmp_path / "table.json") == table
    times, found = [true(a) for a in members(space)], [true(a) for a in table.extremes(space)]
    assert (min(found), max(found)) == pytest.approx((min(times), max(times)))


def test_a_supernet_refuses_what_is_no_slice():
    fixed = replace(PLAIN, head_dim=4)
    for gene in ("patch_size", "stem", "position", "mlp"):
        with pytest.raises(LibranasError, match=rf"share weights among the choices of space.{gene}"):
            Supernet(replace(fixed, **{gene: GENES[gene]}), 0)
    with pytest.raises(LibranasError, match=r"space.position(.|\n)*other than sincos"):
        Supernet(replace(fixed, position="sincos"), 0)


def test_a_supernet_shares_what_is_a_slice():
    shared = {gene: GENES[gene] for gene in ("pool", "qk_norm", "layer_scale")}
    space = replace(PLAIN, head_dim=4, stem="conv", mlp="gelu", **shared)
    net, rng = Supernet(space, 0), np.random.default_rng(0)
    net.model.eval()
    for _ in range(8):
        arch = space.sample(rng)
        torch.testing.assert_close(net.forward(arch, images()), net.extract(arch)(images()))


def test_the_report_names_the_genes():
    arch = some(1)[0]
    (picture,) = drawings({"winner": {"architecture": arch.json}}).values()
    assert f"pool {arch['pool']}, stem {arch['stem']}" in picture
