"""The DARTS space: strings, isomorphic members, closed forms against built networks and published tables, masks."""

import copy
from itertools import permutations

import numpy as np
import pytest
import torch
from torch import nn

from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.networks import build
from libranas.networks.darts import DARTSSupernet
from libranas.spaces import DARTSSpace, make_space
from libranas.spaces.cells.darts import EDGES, KINDS, OPERATIONS, cell_mask, full_mask, genotype

SPACE = DARTSSpace()
TINY = DARTSSpace(image_size=8, channels=1, classes=3, width=4, layers=3)
#: The second-order genotype of the paper.
TEXT = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
    "('skip_connect', 0), ('sep_conv_3x3', 1), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5], "
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('max_pool_3x3', 1), ('skip_connect', 2)], reduce_concat=[2, 3, 4, 5])"
)
CODES = (
    "(((0, 3), (1, 3), (0, 3), (1, 3), (1, 3), (0, 2), (0, 2), (2, 5)), "
    "((0, 0), (1, 0), (2, 2), (1, 0), (0, 0), (2, 2), (2, 2), (1, 0)))"
)


def random_members(count: int, space: DARTSSpace = SPACE) -> list[Arch]:
    rng = np.random.default_rng(0)
    return [space.sample(rng) for _ in range(count)]


# -- members and strings -------------------------------------------------------------------------------------


def test_strings():
    arch = SPACE.parse(TEXT)
    assert SPACE.format(arch) == TEXT and SPACE.parse(arch.json) == SPACE.parse(CODES) == arch
    assert SPACE.parse(TEXT.replace("[2, 3, 4, 5]", "range(2, 6)")) == arch
    # the order of a node's edges has no meaning
    swapped = TEXT.replace("('max_pool_3x3', 1), ('skip_connect', 2)", "('skip_connect', 2), ('max_pool_3x3', 1)")
    assert swapped != TEXT and SPACE.parse(swapped) == arch


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace("dil_conv_3x3", "conv_3x3"),
        TEXT.replace("('sep_conv_3x3', 0), ", "", 1),
        TEXT.replace("('dil_conv_3x3', 2)", "('dil_conv_3x3', 5)"),
        TEXT.replace("('dil_conv_3x3', 2)", "('dil_conv_3x3', 0)"),  # twice the same node
        TEXT.replace("[2, 3, 4, 5]", "[3, 4, 5]", 1),
        TEXT.replace("Genotype", "print"),
        "Genotype(1)",
        CODES.replace("(2, 5)", "(2, 7)"),
        CODES.replace("(2, 5)", "(2, -2)"),
        CODES.replace("(2, 5)", "(-1, 5)"),
        CODES.replace("(2, 5)", "(2, True, 5)"),
        '{"family":"autoformer","normal":[],"reduce":[]}',
    ],
)
def test_other_strings_are_refused(text):
    with pytest.raises(LibranasError, match="not a member of the DARTS space"):
        SPACE.parse(text)


def test_the_papers_size():
    assert SPACE.size() == (1 * 3 * 6 * 10 * 7**8) ** 2


def test_a_mutant_differs_in_one_edge_and_a_child_takes_each_node_from_a_parent():
    rng = np.random.default_rng(1)
    a, b = SPACE.sample(rng), SPACE.sample(rng)
    moved = set()
    for _ in range(100):
        mutant, child = SPACE.mutate(a, rng), SPACE.cross(a, b, rng)
        changed = [set(mutant[k][i : i + 2]) - set(a[k][i : i + 2]) for k in KINDS for i in range(0, 8, 2)]
        assert sum(map(len, changed)) == 1
        moved |= {i for i, pairs in enumerate(changed) if pairs}
        for kind in KINDS:
            for i in range(0, 8, 2):
                assert child[kind][i : i + 2] in (a[kind][i : i + 2], b[kind][i : i + 2])
    assert len(moved) == 8  # every node of both cells
    assert not SPACE.contains(a.replace(normal=a["normal"][:6]))
    assert not SPACE.contains(a.replace(normal=a["normal"][1::-1] + a["normal"][2:]))


def test_the_settings_make_the_space():
    assert make_space({"family": "darts"}, 32, 3, 10) == SPACE
    settings = {"family": "darts", "width": 8, "layers": 5, "affine": False}
    assert make_space(settings, 64, 1, 5) == DARTSSpace(64, 1, 5, 8, 5, False)
    assert DARTSSpace(224).large_stem and not DARTSSpace(64).large_stem
    assert not DARTSSpace(224, large_stem=False).large_stem
    for wrong in ({"width": 1}, {"layers": 2}, {"image_size": 0}):
        with pytest.raises(LibranasError):
            DARTSSpace(**wrong)


# -- isomorphic members --------------------------------------------------------------------------------------


def renumbered(cell, order):
    """The cell with node ``order[i]`` at place 2 + i, or None if one would read a later one."""
    place = {0: 0, 1: 1} | {node: 2 + i for i, node in enumerate(order)}
    pairs = [(op, place[source]) for node in order for op, source in cell[2 * node - 4 : 2 * node - 2]]
    return pairs if all(source < 2 + i // 2 for i, (_, source) in enumerate(pairs)) else None


def test_members_with_nodes_in_another_order_have_one_representative():
    for arch in random_members(20):
        cells = [c for order in permutations((2, 3, 4, 5)) if (c := renumbered(arch["normal"], order))]
        found = {SPACE.representative(SPACE.arch(cell, arch["reduce"])) for cell in cells}
        assert len(found) == 1 and SPACE.representative(found.pop()) == SPACE.representative(arch)


def test_features():
    features = SPACE.features(SPACE.parse(TEXT))
    assert features["normal_count_sep_conv_3x3"] == 5 and features["normal_edge_25_dil_conv_3x3"] == 1
    assert features["normal_reads_0"] == 4 and features["normal_reads_1"] == 3 and features["normal_ends"] == 3
    assert features["normal_most_depth"] == 2 and features["normal_mean_depth"] == 5 / 4
    assert features["normal_most_conv"] == 2 and features["reduce_most_conv"] == 0 == features["reduce_mean_conv"]
    assert features["reduce_most_pool"] == 1 and features["reduce_edge_23_skip_connect"] == 1


# -- sizes ---------------------------------------------------------------------------------------------------


def test_the_papers_network():
    arch = SPACE.parse(TEXT)
    assert SPACE.params(arch) == 3_349_342  # the paper: 3.3 million
    assert round(DARTSSpace(224, 3, 1000, 48, 14).params(arch) / 1e6, 1) == 4.7


# -- the network ---------------------------------------------------------------------------------------------


def test_what_a_cell_computes():
    cell = build(TINY, TINY.parse(TEXT), seed=0).eval().cells[2]
    x, y = torch.randn(2, 16, 8, 8), torch.randn(2, 32, 4, 4)
    a, b = cell.first(x), cell.second(y)
    ops = {name: next(iter(edge.values())) for name, edge in cell.edges.items()}
    two = ops["02"](a) + ops["12"](b)  # a reduction cell: of images of half the size
    three = ops["13"](b) + ops["23"](two)
    assert two.shape == (2, 16, 2, 2)
    torch.testing.assert_close(cell(x, y)[:, :32], torch.cat([two, three], dim=1))


def test_the_network_has_named_blocks():
    net = build(TINY, TINY.parse(TEXT), seed=0)
    assert net.features == ("stem", "cells.0", "cells.1", "cells.2")
    large = build(DARTSSpace(128, width=4, layers=3), SPACE.parse(TEXT), seed=0)
    assert large.features[:3] == ("stem", "reduction", "cells.0")


def test_drop_path_spares_identities_and_acts_in_training_only():
    skips = TINY.arch(*[[("skip_connect", s) for s in (0, 1) * 4]] * 2)
    x = torch.randn(4, 1, 8, 8)
    for arch, stochastic in ((skips, False), (TINY.parse(TEXT), True)):
        net = build(TINY, arch, seed=0, drop_path_rate=0.5)
        torch.testing.assert_close(net.eval()(x), build(TINY, arch, seed=0).eval()(x))
        cell = net.train().cells[0]
        inputs = (torch.randn(4, 12, 8, 8), torch.randn(4, 12, 8, 8))
        assert torch.equal(cell(*inputs), cell(*inputs)) != stochastic


# -- masks and the supernet ----------------------------------------------------------------------------------

SKELETON = {"width": 4, "layers": 3, "in_chans": 1, "num_classes": 3}


@pytest.mark.parametrize("affine", [True, False])
def test_a_mask_with_the_operations_of_a_member_is_the_member(affine):
    """With weights from the whole supernet, and against the sum over operations that the whole supernet is."""
    space = DARTSSpace(8, 1, 3, 4, 3, affine)
    whole = DARTSSupernet(full_mask(), affine=affine, **SKELETON).eval()
    x = torch.randn(2, 1, 8, 8)
    assert whole(x).shape == (2, 3)
    for arch in random_members(2, space):
        mask = {kind: cell_mask(arch[kind]) for kind in KINDS}
        part, member = DARTSSupernet(mask, affine=affine, **SKELETON).eval(), build(space, arch, seed=0).eval()
        names = part.state_dict().keys()
        weights = {name: weight for name, weight in whole.state_dict().items() if name in names}
        part.load_state_dict(weights)
        member.load_state_dict(weights)
        assert torch.equal(part(x), member(x))
        # the whole supernet with every other operation made zero
        silent = copy.deepcopy(whole)
        for cell, kind in zip(silent.cells, ("normal", "reduce", "reduce"), strict=True):
            for (i, j), left in zip(EDGES, mask[kind], strict=True):
                for name, op in cell.edges[f"{i}{j}"].items():
                    if name not in left:
                        op.register_forward_hook(lambda module, args, output: output * 0)
        torch.testing.assert_close(silent(x), member(x))


def test_the_whole_supernet():
    mask = full_mask()
    assert {kind: [len(left) for left in edges] for kind, edges in mask.items()} == dict.fromkeys(mask, [8] * 14)
    net = DARTSSupernet(mask, **SKELETON)
    net(torch.randn(2, 1, 8, 8)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    assert sum(isinstance(m, nn.MaxPool2d) for m in net.modules()) == 3 * 14
    assert net.features == ("stem", "cells.0", "cells.1", "cells.2")
    none, empty = ([left if target == 3 else ("skip_connect",) for _, target in EDGES] for left in (("none",), ()))
    DARTSSupernet({"normal": none, "reduce": none}, **SKELETON)(torch.zeros(2, 1, 8, 8))
    with pytest.raises(LibranasError, match="node 3"):
        DARTSSupernet({"normal": empty, "reduce": empty}, **SKELETON)


def test_the_genotype_of_a_mask():
    rng = np.random.default_rng(0)
    for arch in random_members(10):
        mask, scores = {}, {}
        for kind in KINDS:
            kept = cell_mask(arch[kind])
            mask[kind] = tuple(left or (str(rng.choice(OPERATIONS)),) for left in kept)
            scores[kind] = [rng.uniform(1, 2) if left else rng.uniform(0, 1) for left in kept]
        assert genotype(mask, scores) == arch
        # edges that carry nothing cannot be kept, whatever their score
        for absent in ((), ("none",)):
            bare = {kind: tuple(left or absent for left in cell_mask(arch[kind])) for kind in mask}
            assert genotype(bare, {kind: [-s for s in scores[kind]] for kind in mask}) == arch


def test_a_mask_that_is_no_genotype():
    scores = dict.fromkeys(KINDS, [0.0] * 14)
    with pytest.raises(LibranasError, match="8 operations"):
        genotype(full_mask(), scores)
    edges = (("skip_connect",), ("none",), *[("max_pool_3x3",)] * 12)
    with pytest.raises(LibranasError, match="Node 2 of the normal cell has fewer than two edges"):
        genotype({"normal": edges, "reduce": edges}, scores)
