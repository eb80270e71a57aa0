"""What holds for every search space of the registry: its members, strings, counts and networks."""

import json

import numpy as np
import pytest
import timm
import torch
from timm.models import save_for_hf
from torch.utils.flop_counter import FlopCounterMode

from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.networks import build
from libranas.spaces import FAMILIES, Budget, Sampler, make_space
from libranas.zero_cost.anatomy import examine

VIT = {"embed_dim": [8, 12], "depth": [2, 3], "num_heads": [1, 2], "mlp_ratio": [1.0, 2.0], "patch_size": 4}
#: Every gene that a vision transformer can have.
WIDE = {"depth": [1, 2], "mlp_ratio": [0.5, 2.0], "head_dim": "auto", "patch_size": [1, 2, 4], "pool": ["avg", "token"]}
WIDE |= {"stem": ["linear", "conv"], "position": ["absolute", "relative", "both", "sincos"], "mlp": ["gelu", "swiglu"]}
WIDE |= {"qk_norm": [False, True], "layer_scale": [False, True], "max_relative_position": 2, "init_std": "auto"}
#: Family, settings, image size and channels of small spaces; each has three classes.
SMALL = [
    ("autoformer", {**VIT, "head_dim": 4, "max_relative_position": 1}, 8, 1),
    ("autoformer", {**VIT, **WIDE}, 8, 1),
    ("pit", {"base_dim": [4, 6], "mlp_ratio": [1.5, 2.0], "patch_size": 4}, 16, 3),
    ("nasbench101", {"width": 7, "cells": 1}, 8, 1),
    ("nasbench101", {"width": 8, "cells": 2}, (8, 12), 2),
    ("nasbench201", {"width": 2, "cells": 1}, 8, 1),
    ("nasbench201", {"width": 3, "cells": 2}, (8, 12), 2),
    ("transnas101", {"width": 4}, 16, 1),
    ("transnas101", {"width": 6}, 10, 3),
    ("transnas101", {"width": 4, "variant": "naslib"}, (8, 12), 2),
    ("transnas101", {"width": 4, "level": "macro"}, 16, 1),
    ("darts", {"width": 4, "layers": 3}, 8, 1),
    ("darts", {"width": 3, "layers": 5, "affine": False}, (9, 14), 2),
    ("darts", {"width": 5, "layers": 4, "large_stem": True}, (33, 40), 3),
]


def made(family: str, settings: dict, size, channels: int, classes: int = 3):
    return make_space({"family": family, **settings}, size, channels, classes)


@pytest.fixture(params=SMALL, ids=lambda small: f"{small[0]}-{small[1].get('level', small[2])}")
def space(request):
    return made(*request.param)


def some(space, count: int) -> list[Arch]:
    rng = np.random.default_rng(0)
    return [*(space.sample(rng) for _ in range(count)), *space.extremes()]


def images(space) -> torch.Tensor:
    sides = (space.image_size,) * 2 if isinstance(space.image_size, int) else space.image_size
    return torch.randn(2, space.channels, *sides, generator=torch.Generator().manual_seed(0))


def test_every_family_is_here():
    assert {family for family, *_ in SMALL} == set(FAMILIES)


@pytest.mark.parametrize("small", SMALL, ids=lambda small: small[0])
def test_equal_settings_make_equal_spaces(small):
    space = made(*small)
    assert made(*small) == space and hash(made(*small)) == hash(space) and "classes=3" in repr(space)
    assert made(*small, classes=4) != space


def test_variation_stays_in_the_space(space):
    rng = np.random.default_rng(1)
    for _ in range(30):
        a, b = space.sample(rng), space.sample(rng)
        assert all(space.contains(arch) for arch in (a, b, space.mutate(a, rng), space.cross(a, b, rng)))
        assert space.cross(a, a, rng) == a
    assert not space.contains(Arch("another", a.genes))


def test_a_string_names_one_member(space):
    for arch in some(space, 50):
        assert space.parse(space.format(arch)) == space.parse(arch.json) == arch == space.canonical(arch)
    for text in ("", "nonsense", "[]", "(0, 1", "3", "{}", '{"family": "another", "depth": 1}'):
        with pytest.raises(LibranasError, match="not a member of"):
            space.parse(text)


def test_features_have_the_same_names_for_every_member(space):
    names = list(space.features(space.extremes()[0]))
    for arch in some(space, 20):
        features = space.features(arch)
        assert list(features) == names and all(isinstance(value, float) for value in features.values())
        assert np.isfinite(list(features.values())).all()


def test_the_sampler_draws_no_network_twice(space):
    count = min(300, space.size() // 4)
    drawn = Sampler(space, Budget(), np.random.default_rng(0)).take(count)
    assert len({space.representative(arch).id for arch in drawn}) == count


def test_extremes_bound_the_members(space):
    for count in (space.params, space.macs):
        extremes = [count(arch) for arch in space.extremes()]
        assert all(min(extremes) <= count(arch) <= max(extremes) for arch in some(space, 200))


def test_closed_forms_equal_the_built_network(space):
    archs = some(space, 5)
    for arch in archs[:: max(1, len(archs) // 12)]:
        net = build(space, arch, seed=0).eval()
        assert sum(p.numel() for p in net.parameters()) == space.params(arch)
        with FlopCounterMode(display=False) as counter:
            assert net(images(space)).shape == (2, 3)
        assert counter.get_total_flops() == 2 * 2 * space.macs(arch)


def test_the_network_has_named_blocks_and_changes_nothing_in_place(space):
    arch = space.extremes()[1]
    net = build(space, arch, seed=0)
    if space.family not in ("autoformer", "pit"):  # theirs are found by their class
        assert len(net.features) > 1 and set(net.features) <= dict(net.named_modules()).keys()
        assert [name for name, _, _ in examine(net, net.features).features] == list(net.features)
        assert net.in_chans == space.channels and net.num_classes == 3
    assert not any(getattr(module, "inplace", False) for module in net.modules())
    if space.family not in ("autoformer", "pit", "darts"):
        with pytest.raises(LibranasError, match="no stochastic depth"):
            build(space, arch, seed=0, drop_path_rate=0.1)


def test_timm_loads_a_saved_network(space, tmp_path):
    net = build(space, space.extremes()[1], seed=3, timm=True).eval()
    x = images(space)
    save_for_hf(net, str(tmp_path), safe_serialization=True, data_config={"input_size": tuple(x.shape[1:])})
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    ours, theirs = net.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
    torch.testing.assert_close(loaded(x), net(x))
    net.reset_classifier(0)
    assert net(x).shape == (2, net.num_features)
    assert json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]["num_classes"] == 3
