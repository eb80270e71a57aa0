"""NAS-Bench-201: strings, isomorphic members, closed forms against built networks and the published tables."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from libranas.core.errors import LibranasError
from libranas.spaces import NASBench201Space, make_space
from libranas.spaces.cells.base import PATHS, representatives

SPACE = NASBench201Space()
TEXT = "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|avg_pool_3x3~0|nor_conv_1x1~1|nor_conv_3x3~2|"


# -- members and strings -------------------------------------------------------------------------------------


def test_the_string_names_the_edges_by_target():
    arch = SPACE.parse(TEXT)
    assert arch["edges"] == ("nor_conv_3x3", "skip_connect", "none", "avg_pool_3x3", "nor_conv_1x1", "nor_conv_3x3")
    # 0 skip, 1 none, 2 conv 3x3, 3 conv 1x1, 4 pool; edges (0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)
    assert SPACE.parse("(2, 0, 4, 1, 3, 2)") == SPACE.parse("[2,0,4,1,3,2]") == SPACE.parse(arch.json) == arch
    assert SPACE.format(arch) == TEXT


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace("avg_pool_3x3", "max_pool_3x3"),
        TEXT.rsplit("+", 1)[0],
        TEXT.replace("none~1", "none~0"),
        "(0, 0, 0, 0, 0)",
        "(0, 0, 0, 0, 0, 5)",
        "(0, 0, 0, 0, 0, -1)",
        "(0, 0, 0, 0, 0, 0.5)",
        '{"family":"nasbench201","edges":["none"]}',
    ],
)
def test_other_strings_are_refused(text):
    with pytest.raises(LibranasError, match="not a member of NAS-Bench-201"):
        SPACE.parse(text)


def test_a_mutant_differs_in_one_edge_and_a_child_takes_each_from_a_parent():
    rng = np.random.default_rng(1)
    a, b = SPACE.sample(rng), SPACE.sample(rng)
    for _ in range(50):
        mutant, child = SPACE.mutate(a, rng), SPACE.cross(a, b, rng)
        assert sum(x != y for x, y in zip(a["edges"], mutant["edges"], strict=True)) == 1
        assert all(c in pair for c, *pair in zip(child["edges"], a["edges"], b["edges"], strict=True))
    assert not SPACE.contains(a.replace(edges=a["edges"][:5]))


def test_the_settings_make_the_space():
    assert make_space({"family": "nasbench201"}, 32, 3, 10) == SPACE
    assert make_space({"family": "nasbench201", "width": 8, "cells": 2}, 64, 1, 5) == NASBench201Space(64, 1, 5, 8, 2)
    assert NASBench201Space((8, 8)) == NASBench201Space(8)
    with pytest.raises(LibranasError, match="30 x 30"):
        NASBench201Space(30)


# -- isomorphic members --------------------------------------------------------------------------------------


def used(edges) -> tuple[str, ...]:
    """The cell with ``none`` for the operations that no path uses."""
    alive = [path for path in PATHS if all(edges[e] != "none" for e in path)]
    return tuple(op if any(e in path for path in alive) else "none" for e, op in enumerate(edges))


def test_representatives():
    table = representatives(SPACE.OPERATIONS, SPACE.WEIGHTED)
    assert len(table) == 15_625 and len(set(table.values())) == 5_260
    assert all(table[r] == r for r in set(table.values()))
    # 9,445 members have no operation that no path uses; that is zc_combine's notion
    pruned = {used(edges) for edges in table}
    assert len(pruned) == 9_445 and all(table[used(edges)] == table[edges] for edges in table)


def papers_rule(edges) -> str:
    """Dong and Yang's notation of a cell, in which a zero stays a term of its sum and convolutions have no identity."""
    nodes, operations = ["0"], iter(edges)
    for target in (1, 2, 3):
        terms = []
        for source in range(target):
            operation = next(operations)
            if operation == "none" or nodes[source] == "#":
                terms.append("#")
            else:
                terms.append(nodes[source] if operation == "skip_connect" else f"({nodes[source]})@{operation}")
        nodes.append("+".join(sorted(terms)))
    return nodes[-1]


def test_the_papers_count_follows_from_the_papers_rule():
    assert len({papers_rule(edges) for edges in product(SPACE.OPERATIONS, repeat=6)}) == 6_466


@pytest.mark.parametrize(
    "a, b, same",
    [
        # the same two convolutions by way of node 1 or of node 2
        (("c3", "none", "none", "none", "c1", "none"), ("none", "c3", "none", "none", "none", "c1"), True),
        (("c3", "none", "none", "none", "c1", "none"), ("c3", "none", "skip", "none", "none", "c1"), True),
        # an operation that no path uses
        (("c3", "none", "none", "none", "c1", "none"), ("c3", "pool", "none", "none", "c1", "none"), True),
        # one convolution used twice, and two convolutions
        (("c3", "none", "skip", "none", "skip", "skip"), ("c3", "c3", "none", "none", "skip", "skip"), False),
        # the input once and twice
        (("skip", "none", "none", "skip", "skip", "none"), ("none", "none", "none", "skip", "none", "none"), False),
        # a pooling has no weights, so one pooling used twice is two poolings
        (("pool", "none", "skip", "none", "skip", "skip"), ("pool", "pool", "none", "none", "skip", "skip"), True),
    ],
)
def test_what_is_the_same_network(a, b, same):
    names = {"c1": "nor_conv_1x1", "c3": "nor_conv_3x3", "skip": "skip_connect", "pool": "avg_pool_3x3"}
    a, b = (SPACE.arch(names.get(op, op) for op in edges) for edges in (a, b))
    assert (SPACE.representative(a) == SPACE.representative(b)) == same


def test_features():
    features = SPACE.features(SPACE.parse(TEXT))
    assert features.keys() == SPACE.features(SPACE.arch(["none"] * 6)).keys()
    assert features["count_nor_conv_3x3"] == 2 and features["edge_02_skip_connect"] == 1
    assert features["paths"] == 3  # 0-3, 0-1-3 and 0-2-3
    assert features["shortest_nor_conv_3x3"] == 4 and features["shortest_nor_conv_1x1+nor_conv_3x3"] == 2
    assert features["most_nor_conv_3x3"] == 1 and features["most_nor_conv_1x1+nor_conv_3x3"] == 2
    assert features["input_nor_conv_3x3"] == 1 and features["output_avg_pool_3x3"] == 1


# -- sizes ---------------------------------------------------------------------------------------------------


def test_the_largest():
    assert SPACE.params(SPACE.extremes()[1]) == 1_531_546  # of the paper's code for six 3x3 convolutions


def test_the_order_of_naslibs_edges(shared_dir):
    """The large table has the members without an operation that no path uses; in another order it would not."""
    rows = pd.read_csv(shared_dir / "data" / "nas_bench_suite_zero" / "nasbench201-cifar10-9445.csv")
    cells = {SPACE.parse(text)["edges"] for text in rows.arch}
    assert len(cells) == len(rows) == 9_445 and all(used(edges) == edges for edges in cells)
