"""TransNAS-Bench-101: strings, members, closed forms against built networks and the published tables."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from enumeration import members
from torch.utils.flop_counter import FlopCounterMode

from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.networks import build
from libranas.networks.transnas101 import model_args
from libranas.spaces import TransNASMacroSpace, TransNASMicroSpace, make_space
from libranas.spaces.cells.transnas101 import TASKS, decoder

MICRO, MACRO = TransNASMicroSpace(), TransNASMacroSpace()
TINY_MICRO = TransNASMicroSpace(16, 1, 3, width=4)
TINY_NASLIB = TransNASMicroSpace((8, 12), 2, 3, width=4, variant="naslib")
TINY_MACRO = TransNASMacroSpace(16, 1, 3, width=4)
TINY = [TINY_MICRO, TINY_NASLIB, TINY_MACRO]
CELL = "64-41414-1_02_333"


def random_members(space, count: int) -> list[Arch]:
    rng = np.random.default_rng(0)
    return [space.sample(rng) for _ in range(count)]


# -- members and strings -------------------------------------------------------------------------------------


def test_the_string_of_a_cell_names_the_edges_by_target():
    arch = MICRO.parse(CELL)
    assert arch["edges"] == (
        "skip_connect", "none", "nor_conv_1x1", "nor_conv_3x3", "nor_conv_3x3", "nor_conv_3x3",
    )  # fmt: skip
    assert MICRO.parse("(1, 0, 2, 3, 3, 3)") == MICRO.parse(arch.json) == arch and MICRO.format(arch) == CELL
    # codes and order of NASLib's own tables: 0 skip, 1 none, 2 conv 3x3, 3 conv 1x1; (0, 1), (0, 2), (0, 3), (1, 2) ...
    assert TINY_NASLIB.parse("(0, 1, 2, 3, 2, 2)") == TINY_NASLIB.parse(CELL) == arch


def test_the_string_of_a_macro_network_names_its_modules():
    arch = MACRO.parse("64-1234-basic")
    assert arch["modules"] == (1, 2, 3, 4) and MACRO.format(arch) == "64-1234-basic"
    assert arch == MACRO.parse("(1, 2, 3, 4)") == MACRO.parse("(1, 2, 3, 4, 0, 0)") == MACRO.parse(arch.json)


@pytest.mark.parametrize(
    "space, text",
    [
        (MICRO, "64-41414-1_02_33"),
        (MICRO, "64-41414-1_02_334"),
        (MICRO, "(0, 0, 0, 0, 0, 4)"),
        (MICRO, "(0, 0, 0, 0, 0, 0.5)"),
        (MICRO, "(0, 0, 0, 0, 0)"),
        (MICRO, "64-1234-basic"),
        (MICRO, '{"family":"transnas101","modules":[1,2,3,4]}'),
        (MACRO, CELL),
        (MACRO, "64-111-basic"),
        (MACRO, "64-1111-basic"),  # never halves
        (MACRO, "64-44441-basic"),  # doubles four times
        (MACRO, "(1, 2, 3, 4, 5)"),
        (MACRO, "(1, 2, 3, 4.5)"),
        (MACRO, "(1, 0, 2, 3, 4)"),
    ],
)
def test_other_strings_are_refused(space, text):
    with pytest.raises(LibranasError, match="not a member of the m"):
        space.parse(text)


def test_the_macro_space_is_drawn_evenly_and_mutates_by_one_module():
    drawn = [len(a["modules"]) for a in random_members(MACRO, 2_000)]
    shares = np.bincount(drawn, minlength=7)[4:] / len(drawn)
    np.testing.assert_allclose(shares, np.array([210, 750, 2296]) / 3256, atol=0.04)
    rng = np.random.default_rng(0)
    for arch in random_members(MACRO, 20):
        a, b = arch["modules"], MACRO.mutate(arch, rng)["modules"]
        assert abs(len(a) - len(b)) <= 1
        if len(a) == len(b):
            assert sum(x != y for x, y in zip(a, b, strict=True)) == 1


def test_the_settings_make_the_space():
    make = lambda **settings: make_space({"family": "transnas101"} | settings, 64, 3, 10)  # noqa: E731
    assert make() == make(level="micro") == TransNASMicroSpace(64, 3, 10)
    assert make(variant="naslib", width=16) == TransNASMicroSpace(64, 3, 10, width=16, variant="naslib")
    assert make(level="macro", task="normal") == TransNASMacroSpace(64, 3, 10, "normal")
    assert MICRO.family == MACRO.family
    for wrong, message in (
        ({"level": "nano"}, "level"),
        ({"task": "depth"}, "task"),
        ({"variant": "x"}, "variant"),
        ({"variant": "naslib", "task": "jigsaw"}, "variant naslib with"),
    ):
        with pytest.raises(LibranasError, match=message):
            make(**wrong)
    with pytest.raises(LibranasError, match="96 x 96"):
        TransNASMacroSpace(96, task="segmentsemantic")


# -- isomorphic members --------------------------------------------------------------------------------------


def test_representatives():
    chosen = {arch.id: MICRO.representative(arch) for arch in members(MICRO)}
    assert len({r.id for r in chosen.values()}) == 1_376
    assert all(chosen[r.id] == r for r in chosen.values())
    arch = MACRO.parse("64-1234-basic")
    assert MACRO.representative(arch) == arch


@pytest.mark.parametrize(
    "a, b, same",
    [
        ("3_00_020", "0_30_002", True),  # by way of node 1 or of node 2
        ("3_02_020", "3_00_020", True),  # a convolution that leads nowhere
        ("1_00_010", "0_00_100", True),  # identities inside a cell are nothing, at the input they are reductions
        ("1_01_011", "1_10_011", False),  # one reduction used twice, and two of them
        ("1_01_011", "0_00_100", False),  # the input once and twice
    ],
)
def test_what_is_the_same_network(a, b, same):
    a, b = (MICRO.parse(f"64-41414-{digits}") for digits in (a, b))
    assert (MICRO.representative(a) == MICRO.representative(b)) == same


def test_features_of_a_macro_network():
    features = MACRO.features(MACRO.parse("64-14123-basic"))
    assert features["modules"] == 5 and features["count_1"] == 2 and features["module1_4"] == 1
    assert features["wider_end"] == 2 and features["smaller_end"] == 2
    assert features["wider_mean"] == (0 + 1 + 1 + 2 + 2) / 5 and features["module5_1"] == 0


# -- sizes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_its_output(task):
    outputs = {"room_layout": 9, "jigsaw": 1000, "segmentsemantic": 17, "normal": 3, "autoencoder": 3}.get(task, 5)
    for space, text, size in (
        (TransNASMicroSpace, CELL, 32),
        (TransNASMacroSpace, "64-1234-basic", 64),
        (TransNASMacroSpace, "64-3343-basic", 64),
    ):
        space = space(size, 3, 5, task, width=2)
        arch = space.parse(text)
        net = build(space, arch, seed=0).eval()
        assert sum(p.numel() for p in net.parameters()) == space.params(arch)
        shape = (outputs, size, size) if task in ("segmentsemantic", "normal", "autoencoder") else (outputs,)
        pieces = (9,) if task == "jigsaw" else ()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            assert net(torch.randn(1, *pieces, 3, size, size)).shape == (1, *shape)
        assert counter.get_total_flops() == 2 * space.macs(arch)


@pytest.mark.parametrize("task", ["segmentsemantic", "normal"])
@pytest.mark.parametrize("doublings", [3, 4, 5, 6])
def test_decoders_double_the_resolution_as_often_as_asked(task, doublings):
    layers = decoder(task, 128, 7, doublings)
    assert sum(layer.up for layer in layers) == doublings
    assert [layer.last for layer in layers] == [False] * (len(layers) - 1) + [True] and layers[-1].outputs == 7
    assert all(a.outputs == b.inputs for a, b in pairwise(layers))


# -- the network ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", TINY)
def test_each_module_has_two_named_blocks(space):
    arch = random_members(space, 1)[0]
    assert len(build(space, arch, seed=0).features) == 1 + 2 * len(model_args(space, arch)["modules"])


def test_initial_weights():
    for published in (False, True):
        space = TransNASMacroSpace(64, 3, 5, "normal", width=32, published_init=published)
        net = build(space, space.parse("64-1234-basic"), seed=0)
        weight = net.blocks[0].main[0][1].weight  # 32 to 32 channels, 3x3
        uniform, normal = (1 / (3 * 9 * 32)) ** 0.5, (2 / (9 * 32)) ** 0.5
        assert weight.std().item() == pytest.approx(normal if published else uniform, rel=0.05)
        decoder_weight = net.head[1][0].weight
        assert decoder_weight.std().item() == pytest.approx((1 / (3 * 9 * 1024)) ** 0.5, rel=0.05)
