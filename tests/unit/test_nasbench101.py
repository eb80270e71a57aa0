"""NAS-Bench-101: strings, isomorphic members, closed forms against built networks and the published table."""

import json
from itertools import islice

import networkx
import numpy as np
import pytest
import torch
from enumeration import members, number_of_cells

from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.networks import build
from libranas.spaces import NASBench101Space, make_space
from libranas.spaces.cells.nasbench101 import OPERATIONS, VERTICES, vertex_channels

SPACE = NASBench101Space()
TINY = NASBench101Space(image_size=8, channels=1, classes=3, width=7, cells=1)
POOL, C1, C3 = OPERATIONS
#: Input to 1, 2 and the output; 1 to 2; 1 and 2 to the output.
TRIANGLE = '{"matrix": [[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]], "ops": %s}'
TEXT = TRIANGLE % json.dumps(["input", C3, POOL, "output"])


def graph(edges: str, *ops: str) -> tuple[list[list[int]], list[str]]:
    """Matrix and names from edges such as "01 12" and the operations of the inner vertices."""
    matrix = [[0] * (len(ops) + 2) for _ in range(len(ops) + 2)]
    for u, v in edges.split():
        matrix[int(u)][int(v)] = 1
    return matrix, ["input", *ops, "output"]


def random_members(count: int, space: NASBench101Space = SPACE) -> list[Arch]:
    rng = np.random.default_rng(0)
    return [space.sample(rng) for _ in range(count)]


# -- members and strings -------------------------------------------------------------------------------------


def test_strings():
    arch = SPACE.parse(TEXT)
    assert arch["ops"] == ("input", C3, POOL, "output") and arch["matrix"][1] == (0, 0, 1, 1)
    assert SPACE.format(arch) == TEXT and SPACE.parse(arch.json) == arch
    assert SPACE.parse(TEXT.replace("matrix", "module_adjacency").replace("ops", "module_operations")) == arch
    # row by row, then 0 input, 1 output, 2 pooling, 3 and 4 convolutions
    assert SPACE.parse("(0, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 4, 2, 1)") == arch


def test_vertices_without_effect_are_left_out():
    # vertex 3 has no in-edge, vertex 4 no out-edge
    arch = SPACE.arch(*graph("01 12 25 35 14", C1, C3, POOL, POOL))
    assert arch == SPACE.arch(*graph("01 12 23", C1, C3))


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace(C3, "conv5x5-bn-relu"),
        TEXT.replace('"input", ', ""),
        TEXT.replace("[0, 0, 0, 0]]", "[1, 0, 0, 0]]"),
        TEXT.replace("[[0, 1, 1, 1]", "[[0, 2, 1, 1]"),
        TEXT.replace("[[0, 1, 1, 1]", "[[0, 1, 1]"),
        "(0, 0, 0, 0, 0, 1)",  # no path
        "(0, 1, 0, 0, 0, 5)",
        "(0, 1, 0, 0, 0, -4)",
        "(0, 1, 0, 0, 0)",
        str(tuple(np.triu(np.ones((7, 7), int), 1).ravel()) + (0, 2, 2, 2, 2, 2, 1)),  # 21 edges
        str(tuple(np.triu(np.ones((8, 8), int), 1).ravel()) + (0, 2, 2, 2, 2, 2, 2, 1)),
        '{"family":"nasbench201","matrix":[[0,1],[0,0]],"ops":["input","output"]}',
    ],
)
def test_other_strings_are_refused(text):
    with pytest.raises(LibranasError, match="not a member of NAS-Bench-101"):
        SPACE.parse(text)


def test_variation_reaches_cells_of_every_size():
    rng = np.random.default_rng(1)
    a, b = SPACE.sample(rng), SPACE.parse('{"matrix": [[0, 1], [0, 0]], "ops": ["input", "output"]}')
    sizes = set()
    for _ in range(60):
        a, child, b = SPACE.mutate(a, rng), SPACE.cross(a, b, rng), SPACE.mutate(b, rng)
        assert SPACE.contains(a) and SPACE.contains(child)
        sizes.add(len(b["ops"]))
    assert {4, 5, 6} < sizes  # from two vertices it grows
    assert not SPACE.contains(a.replace(ops=a["ops"][:-1]))
    assert not SPACE.contains(Arch(SPACE.family, dict(zip(("matrix", "ops"), graph("01 13 23", C1, C1), strict=True))))


def test_the_settings_make_the_space():
    assert make_space({"family": "nasbench101"}, 32, 3, 10) == SPACE
    assert make_space({"family": "nasbench101", "width": 8, "cells": 2}, 64, 1, 5) == NASBench101Space(64, 1, 5, 8, 2)
    for wrong in ({"image_size": 30}, {"width": 4}):
        with pytest.raises(LibranasError):
            NASBench101Space(**wrong)


# -- isomorphic members --------------------------------------------------------------------------------------


def test_the_published_number_of_cells():
    assert SPACE.size() == number_of_cells() == 423_624


def test_each_cell_is_enumerated_once_as_its_own_representative():
    cells = list(islice(members(SPACE), 2_532 + 500))
    assert len(cells) == len({m.id for m in cells})
    assert sum(len(m["ops"]) <= 5 for m in cells) == 2_532
    for arch in cells[::7]:
        assert SPACE.representative(arch) == arch and SPACE.contains(arch)


def test_isomorphic_members_have_one_representative():
    rng = np.random.default_rng(3)
    for arch in random_members(40):
        n = len(arch["ops"])
        for _ in range(20):
            order = [0, *rng.permutation(np.arange(1, n - 1)), n - 1]
            matrix = np.array(arch["matrix"])[np.ix_(order, order)]
            other = SPACE.arch(matrix.tolist(), [arch["ops"][v] for v in order])
            if other is not None:  # None: an edge points backward in this order
                assert SPACE.representative(other) == SPACE.representative(arch)
                assert SPACE.features(other) == SPACE.features(arch)


def test_other_graphs_have_other_representatives():
    """Against a slow comparison: the same number of classes among random members as by pairwise isomorphism."""

    def as_graph(arch):
        g = networkx.from_numpy_array(np.array(arch["matrix"]), create_using=networkx.DiGraph)
        networkx.set_node_attributes(g, dict(enumerate(arch["ops"])), "op")
        return g

    rng = np.random.default_rng(5)
    cells = [SPACE.arch(*graph(edges, *rng.choice([C1, C3], 3))) for edges in ["01 02 03 14 24 34"] * 20]
    cells += [SPACE.arch(*graph("01 02 13 23 34", *rng.choice([C1, C3], 3))) for _ in range(20)]
    classes: list = []
    for arch in cells:
        g = as_graph(arch)
        same = lambda a, b: a["op"] == b["op"]  # noqa: E731
        if not any(networkx.is_isomorphic(g, other, node_match=same) for other in classes):
            classes.append(g)
    assert len({SPACE.representative(arch).id for arch in cells}) == len(classes)


def test_features():
    features = SPACE.features(SPACE.parse(TEXT))
    assert features["vertices"] == 4 and features["edges"] == 6 and features[f"count_{C3}"] == 1
    assert features["longest"] == 3 and features["shortest"] == features["skip"] == 1
    assert features["most_conv"] == features[f"most_{POOL}"] == 1 and features[f"only_{C1}"] == 1
    assert features["edge_01"] == features["edge_06"] == 1 and features["edge_34"] == 0
    features = SPACE.features(SPACE.arch(*graph("01 12 23", C1, POOL)))
    assert features["only_conv"] == VERTICES and features["shortest"] == 3


# -- sizes ---------------------------------------------------------------------------------------------------


def test_the_vertices_that_feed_the_output_share_its_channels():
    matrix, _ = graph("01 02 13 23 14 25 35 45", C1, C1, C1, C1)
    # 2, 3 and 4 feed the output; 1 is as wide as the wider of 3 and 4
    assert vertex_channels(matrix, 5, 11) == [5, 4, 4, 4, 3, 11]


@pytest.mark.parametrize("space", [SPACE, TINY])
def test_the_extremes(space):
    counts = [(space.params(m), space.macs(m)) for m in islice(members(space), 0, 12_000, 41)]
    counts += [(space.params(m), space.macs(m)) for m in random_members(100, space)]
    smallest, largest = space.extremes()
    for i, count in enumerate((space.params, space.macs)):
        assert count(smallest) <= min(c[i] for c in counts) and max(c[i] for c in counts) <= count(largest)
    # among all members, of any order of their vertices (counted once by enumeration)
    assert [SPACE.params(arch) for arch in SPACE.extremes()] == [227_274, 49_979_274]


# -- the network ---------------------------------------------------------------------------------------------


def test_what_a_cell_computes():
    """Against the definition, vertex by vertex, with channels that do not divide."""
    arch = TINY.arch(*graph("01 12 03 13 24 34 04", C3, POOL, C1))
    cell = build(TINY, arch, seed=0).eval().blocks[0]
    x = torch.randn(2, 7, 8, 8)
    assert cell.channels == [7, 4, 4, 3, 7]
    one = cell.operations["1"](cell.projections["1"](x))
    two = cell.operations["2"](one)
    three = cell.operations["3"](cell.projections["3"](x) + one[:, :3])
    torch.testing.assert_close(cell(x), torch.cat([two, three], dim=1) + cell.projections["4"](x))
    assert set(cell.projections) == {"1", "3", "4"} and set(cell.operations) == {"1", "2", "3"}


def test_the_blocks_are_those_between_the_poolings():
    assert build(TINY, TINY.parse(TEXT), seed=0).features == ("stem", "blocks.0", "blocks.2", "blocks.4")


def test_the_initial_weights_of_the_port():
    space = NASBench101Space(8, width=64, cells=1, port_init=True)
    net = build(space, space.parse(TEXT), seed=0)
    stem = net.stem[0].weight.detach()
    assert stem.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.1)
    assert net.head.weight.std().item() == pytest.approx(0.01, rel=0.1) and not net.head.bias.any()
