"""Built networks: plain timm models, with relative positions equal to a dense brute force."""

import os
import shutil

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import libranas.nets  # noqa: F401 - registers the models with timm, under the name that model cards use
from libranas.networks import build
from libranas.networks.autoformer import model_args
from libranas.networks.relative_position import RelativePosition, offset_index
from libranas.spaces import AutoFormerSpace, PiTSpace

SPACE = AutoFormerSpace((12, 18), (2, 3), (1, 2, 3), (1.5, 2.0), 4, 12, 4, classes=5, max_relative_position=1)
ARCH = SPACE.arch(18, (2, 3, 1), (1.5, 2.0, 2.0))
PLAIN = AutoFormerSpace(**{**SPACE.__dict__, "relative_position": False})
SHARED = AutoFormerSpace(**{**SPACE.__dict__, "head_dim": "auto"})
PIT = PiTSpace((6,), (1.5,), ((1,), (2,), (1,)), (1, 2), image_size=12, patch_size=4, classes=5)
each_kind = pytest.mark.parametrize("space", [SPACE, PLAIN, SHARED], ids=["relative", "plain", "shared width"])
each_network = pytest.mark.parametrize(
    ("space", "arch"),
    [(SPACE, ARCH), (PLAIN, ARCH), (SHARED, ARCH), (PIT, PIT.arch(6, 1.5, (1, 2, 1), (1, 2, 2)))],
    ids=["relative", "plain", "shared width", "pit"],
)


@pytest.fixture
def model():
    return build(SPACE, ARCH, seed=1).eval()


@pytest.fixture
def images():
    return torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


# -- the architecture ----------------------------------------------------------------------------------------


def test_every_gene_is_in_the_network(model, images):
    assert len(model.blocks) == 3
    for block, heads, ratio in zip(model.blocks, ARCH["num_heads"], ARCH["mlp_ratio"], strict=True):
        assert block.attn.num_heads == heads and block.attn.head_dim == 4
        assert block.attn.qkv.weight.shape == (3 * heads * 4, 18) and block.attn.proj.weight.shape == (18, heads * 4)
        assert block.mlp.fc1.weight.shape == (int(18 * ratio), 18)
    assert model(images).shape == (2, 5)
    assert {type(m) for m in model.modules() if isinstance(m, nn.LayerNorm)} == {nn.LayerNorm}
    assert all(m.eps == 1e-5 for m in model.modules() if isinstance(m, nn.LayerNorm))


def test_heads_may_share_the_width(images):
    net = build(SHARED, ARCH, seed=1).eval()
    for block, heads in zip(net.blocks, ARCH["num_heads"], strict=True):
        assert block.attn.qkv.weight.shape == (3 * 18, 18) and block.attn.head_dim == 18 // heads
        assert block.attn.scale == (18 // heads) ** -0.5
        assert block.attn.rel_pos_keys.vertical_Td.shape == (4, 18 // heads)
    assert net(images).shape == (2, 5)


def test_the_head_sees_the_mean_of_the_patches_without_the_class_token(model, images):
    tokens = model.forward_features(images)
    assert tokens.shape == (2, SPACE.tokens(ARCH), 18)
    torch.testing.assert_close(model(images), model.head(tokens[:, 1:].mean(1)))


def test_equal_seeds_equal_networks():
    a, b, c = (build(SPACE, ARCH, seed=s).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["head.weight"], c["head.weight"])


def test_building_leaves_the_global_state_alone():
    torch.manual_seed(5)
    before, np_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    for fused in (False, True):
        net = build(SPACE, ARCH, seed=1, fused=fused)
        assert all(b.attn.fused_attn == fused for b in net.blocks)
    assert torch.equal(torch.get_rng_state(), before) and (np.random.get_state()[1] == np_before).all()


def test_only_members_are_built():
    with pytest.raises(ValueError, match="not a member"):
        build(SPACE, ARCH.replace(embed_dim=13), seed=0)


@pytest.mark.parametrize("space", [SPACE, PLAIN], ids=["relative", "plain"])
def test_fused_attention_gives_the_same_values(space, images):
    ours, fused = (build(space, ARCH, seed=1, fused=f).eval() for f in (False, True))
    torch.testing.assert_close(ours(images), fused(images))


def test_a_plain_network_is_timms_own(images):
    """Without relative positions and with equal blocks, timm's VisionTransformer is the same."""
    space = AutoFormerSpace((12,), (2,), (3,), (2.0,), 4, 12, 4, 3, 5, relative_position=False)
    ours = build(space, space.arch(12, [3, 3], [2.0, 2.0]), seed=0).eval()
    theirs = timm.models.vision_transformer.VisionTransformer(
        img_size=12,
        patch_size=4,
        num_classes=5,
        embed_dim=12,
        depth=2,
        num_heads=3,
        mlp_ratio=2.0,
        global_pool="avg",
        fc_norm=False,
        norm_layer=lambda *a, **k: nn.LayerNorm(*a, eps=1e-5),
    ).eval()
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(images), theirs(images))


# -- relative positions --------------------------------------------------------------------------------------


def dense_table(tables: RelativePosition, grid: tuple[int, int], most: int) -> torch.Tensor:
    """Embedding of every pair of tokens, (N, N, d), by the definition: loops over pairs."""
    places = [None] + [(r, c) for r in range(grid[0]) for c in range(grid[1])]
    rows = []
    for a in places:
        for b in places:
            if a is None or b is None:
                v = h = 0
            else:
                v, h = (max(-most, min(most, q - p)) + most + 1 for p, q in zip(a, b, strict=True))
            rows.append(tables.vertical_Td[v] + tables.horizontal_Td[h])
    return torch.stack(rows).unflatten(0, (len(places), len(places)))


def dense_attention(attn: nn.Module, x: torch.Tensor, grid, most: int) -> torch.Tensor:
    """What `attn` computes, with dense tables."""
    keys, values = (dense_table(t, grid, most) for t in (attn.rel_pos_keys, attn.rel_pos_values))
    q, k, v = (part.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for part in attn.qkv(x).chunk(3, dim=-1))
    logits = (torch.einsum("bhnd,bhmd->bhnm", q, k) + torch.einsum("bhnd,nmd->bhnm", q, keys)) / attn.head_dim**0.5
    weight = logits.softmax(-1)
    out = weight @ v + torch.einsum("bhnm,nmd->bhnd", weight, values)
    return attn.proj(out.transpose(1, 2).flatten(2))


def tokens(count: int, seed: int = 2) -> torch.Tensor:
    return torch.randn(2, count, 18, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@settings(derandomize=True)
@given(st.tuples(st.integers(1, 4), st.integers(1, 4)), st.integers(1, 5), st.integers(0, 99))
def test_factorised_relative_positions_equal_the_dense_table(grid, most, seed):
    generator = torch.Generator().manual_seed(seed)
    tables = RelativePosition(3, most).double()
    for p in tables.parameters():
        p.data = torch.randn(p.shape, generator=generator, dtype=torch.float64)
    n = grid[0] * grid[1] + 1
    q, v = (torch.randn(2, 2, n, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    attn = torch.randn(2, 2, n, n, generator=generator, dtype=torch.float64).softmax(-1)
    index, dense = offset_index(grid, most), dense_table(tables, grid, most)
    torch.testing.assert_close(tables.key_logits(q, index), torch.einsum("bhnd,nmd->bhnm", q, dense))
    torch.testing.assert_close(tables.mixed_values(attn, index), torch.einsum("bhnm,nmd->bhnd", attn, dense))
    ours, theirs = (
        torch.autograd.grad((f * v).sum(), list(tables.parameters()))
        for f in (tables.mixed_values(attn, index), torch.einsum("bhnm,nmd->bhnd", attn, dense))
    )
    torch.testing.assert_close(ours, theirs)


def test_relative_positions_matter(model, images):
    before = model(images)
    with torch.no_grad():
        model.blocks[0].attn.rel_pos_keys.vertical_Td[2] += 1.0
    assert not torch.allclose(model(images), before)


# -- timm ----------------------------------------------------------------------------------------------------


def test_create_model(images):
    assert "libranas_autoformer" in timm.list_models("libranas*")
    net = timm.create_model("libranas_autoformer", **model_args(SPACE, ARCH), drop_path_rate=0.1)
    assert net(images).shape == (2, 5)
    assert net.default_cfg["classifier"] == "head"


def test_features_only(images):
    net = timm.create_model(
        "libranas_autoformer", **model_args(SPACE, ARCH), features_only=True, out_indices=(0, 2)
    ).eval()
    features = net(images)
    assert [f.shape for f in features] == [(2, 18, 3, 3)] * 2
    assert net.feature_info.channels() == [18, 18] and net.feature_info.reduction() == [4, 4]


def test_intermediate_features_of_the_whole_network(model, images):
    final, layers = model.forward_intermediates(images, indices=[1])
    torch.testing.assert_close(final, model.forward_features(images))
    assert layers[0].shape == (2, 18, 3, 3)


@each_kind
def test_another_image_size(space):
    net = build(space, ARCH, seed=1).eval()
    small = net(torch.ones(1, 3, 12, 12))
    for height, width in ((20, 20), (8, 24)):
        net.set_input_size(img_size=(height, width))
        assert net(torch.ones(1, 3, height, width)).shape == (1, 5)
        if space.relative_position:
            for block in net.blocks:
                assert torch.equal(block.attn.index_2NN, offset_index((height // 4, width // 4), 1))
                assert block.attn.columns == width // 4
    net.set_input_size(img_size=12)
    assert net(torch.ones(1, 3, 12, 12)).shape == small.shape


@pytest.mark.parametrize(("image", "patch", "most"), [(12, 4, 1), ((8, 24), 4, 3), (32, 8, 3), (12, 2, 3)])
def test_attention_equals_brute_force_on_a_grid_of_any_shape(image, patch, most):
    args = {**model_args(SPACE, ARCH), "img_size": image, "patch_size": patch, "max_relative_position": most}
    net = timm.create_model("libranas_autoformer", **args).eval()
    grid, attn = net.patch_embed.grid_size, net.blocks[1].attn.double()
    x = tokens(grid[0] * grid[1] + 1).requires_grad_()
    expected = dense_attention(attn, x, grid, most)
    sources = [x, *attn.parameters()]
    gradients = torch.autograd.grad((expected * expected.sin()).sum(), sources, retain_graph=True)
    for attn.one_hot_positions in (False, True):
        found = attn(x)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(torch.autograd.grad((found * found.sin()).sum(), sources), gradients)


@each_network
def test_gradient_checkpointing_changes_nothing(space, arch, images):
    net = build(space, arch, seed=1, drop_path_rate=0.3).train()
    gradients = []
    for enable in (False, True):
        net.set_grad_checkpointing(enable)
        net.zero_grad()
        torch.manual_seed(3)
        net(images).square().sum().backward()
        gradients.append([p.grad.clone() for p in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@each_network
def test_it_compiles_without_a_graph_break(space, arch, images):
    net = build(space, arch, seed=1).eval()
    attentions = [module for module in net.modules() if getattr(module, "rel_pos_keys", None) is not None]
    for one_hot in (False, True)[: 1 + bool(attentions)]:
        for module in attentions:
            module.one_hot_positions = one_hot
        compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(images), net(images))
        net.zero_grad()
        compiled(images).sum().backward()
        found = [p.grad.clone() for p in net.parameters()]
        net.zero_grad()
        net(images).sum().backward()
        torch.testing.assert_close(found, [p.grad for p in net.parameters()])
        torch._dynamo.reset()


@pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="torch.compile's default backend needs a C++ compiler"
)
def test_the_default_backend_compiles_it():
    """Code that inductor writes itself, of one block: each of its kernels is a run of the compiler. Gradients are
    compared above, where nothing is compiled to machine code."""
    space = AutoFormerSpace((12,), (1,), (2,), (2.0,), 4, 8, 4, 3, 5, max_relative_position=1)
    net, images = build(space, space.arch(12, (2,), (2.0,)), seed=1).eval(), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(net)(images), net(images))
    torch._dynamo.reset()


def test_another_classifier(model, images):
    model.reset_classifier(7)
    assert model(images).shape == (2, 7) and model.num_classes == 7
    model.reset_classifier(0)
    assert model(images).shape == (2, 18)


def test_the_index_is_no_part_of_the_weights(model):
    assert not [name for name in model.state_dict() if "index" in name]
    with torch.device("meta"):
        meta = build(SPACE, ARCH, seed=0)
    assert meta.blocks[0].attn.index_2NN.device.type == "cpu"
    assert all(p.is_meta for p in meta.parameters())


def test_genes_of_different_length_are_refused():
    with pytest.raises(ValueError, match="2 entries in num_heads but 1 in mlp_ratio"):
        timm.create_model("libranas_autoformer", embed_dim=12, num_heads=[1, 2], mlp_ratio=[2.0])


# -- drop path -----------------------------------------------------------------------------------------------


def test_drop_path_rises_over_the_depth_and_acts_in_training_only(images):
    net = build(SPACE, ARCH, seed=1, drop_path_rate=0.4)
    rates = [getattr(b.drop_path1, "drop_prob", 0.0) or 0.0 for b in net.blocks]
    assert rates == pytest.approx([0.0, 0.2, 0.4])
    torch.manual_seed(0)
    assert not torch.equal(net.train()(images), net(images))
    assert torch.equal(net.eval()(images), build(SPACE, ARCH, seed=1).eval()(images))
