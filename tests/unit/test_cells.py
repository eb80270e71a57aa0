"""What convolutional spaces have in common: enumeration, isomorphic members and the published tables."""

from itertools import islice

import numpy as np
import pandas as pd
import pytest
import torch
from enumeration import members

from libranas.networks import build
from libranas.spaces import DARTSSpace, NASBench101Space, NASBench201Space, TransNASMacroSpace, TransNASMicroSpace

TINY_201 = NASBench201Space(8, 1, 3, width=2, cells=1)
TINY_MICRO = TransNASMicroSpace(16, 1, 3, width=4)
SVHN = {"image_size": 32, "channels": 3, "classes": 10}
NINAPRO = {"image_size": (16, 52), "channels": 1, "classes": 18}
SPHERICAL = {"image_size": 60, "channels": 3, "classes": 100}
SMALL_DARTS = {"width": 32, "layers": 8, "affine": False}
#: The space and the rows of each published table.
TABLES = {
    "nasbench101-cifar10": (NASBench101Space(), 500),
    "nasbench201-cifar10": (NASBench201Space(), None),
    "nasbench201-cifar10-9445": (NASBench201Space(), 9_445),
    "nasbench201-cifar100": (NASBench201Space(classes=100), None),
    "nasbench201-ninapro": (NASBench201Space(**NINAPRO), None),
    "nasbench201-scifar100": (NASBench201Space(**SPHERICAL), None),
    "nasbench301-cifar10": (DARTSSpace(**SMALL_DARTS), 725),
    "nasbench301-svhn": (DARTSSpace(**SMALL_DARTS), 199),
    "nasbench301-ninapro": (DARTSSpace(**NINAPRO, **SMALL_DARTS), 199),
    "nasbench301-scifar100": (DARTSSpace(**SPHERICAL, **SMALL_DARTS), 199),
    "transbench101_micro-jigsaw": (TransNASMicroSpace(64, task="jigsaw"), None),
    "transbench101_micro-ninapro": (TransNASMicroSpace(**NINAPRO, variant="naslib"), None),
    "transbench101_micro-svhn": (TransNASMicroSpace(**SVHN, variant="naslib"), None),
    "transbench101_micro-scifar100": (TransNASMicroSpace(**SPHERICAL, variant="naslib"), None),
    **{
        f"transbench101_{level}-{task}": (space(task=task), None)
        for level, space, tasks in (
            ("micro", TransNASMicroSpace, ("class_object", "segmentsemantic", "normal", "autoencoder")),
            ("macro", TransNASMacroSpace, ("class_object", "room_layout", "segmentsemantic", "autoencoder")),
        )
        for task in tasks
    },
}


@pytest.mark.parametrize("table", TABLES)
def test_published_sizes(table, shared_dir):
    """Every row of the tables: params in millions to all digits."""
    rows = pd.read_csv(shared_dir / "data" / "nas_bench_suite_zero" / f"{table}.csv")
    space, count = TABLES[table]
    assert count in (None, len(rows))
    np.testing.assert_allclose([space.params(space.parse(text)) / 1e6 for text in rows.arch], rows.params, rtol=1e-12)


@pytest.mark.parametrize(
    ("space", "size"), [(NASBench201Space(), 15_625), (TransNASMicroSpace(), 4_096), (TransNASMacroSpace(), 3_256)]
)
def test_every_member_is_enumerated_once(space, size):
    found = list(members(space))
    assert len(found) == space.size() == size == len({arch.id for arch in found})
    assert all(space.contains(arch) for arch in found[::31])


@pytest.mark.parametrize(
    ("space", "step"),
    [
        (NASBench201Space(), 11),
        (TINY_MICRO, 1),
        (TransNASMacroSpace(16, 1, 3, width=4), 1),
    ],
)
def test_the_extremes_bound_all_members(space, step):
    for count in (space.params, space.macs):
        found = [count(arch) for arch in islice(members(space), 0, None, step)]
        extremes = [count(arch) for arch in space.extremes()]
        assert min(extremes) <= min(found) and max(found) <= max(extremes)


@pytest.mark.parametrize(
    ("space", "count", "least"),
    [
        (TINY_201, 60, 20),
        (TINY_MICRO, 30, 10),
        (TransNASMicroSpace((8, 12), 2, 3, width=4, variant="naslib"), 30, 10),
        (DARTSSpace(8, 1, 3, width=4, layers=3), 12, 3),
    ],
    ids=["nasbench201", "published", "naslib", "darts"],
)
def test_a_representative_computes_what_its_members_compute(space, count, least):
    """With equal weights in all convolutions of a width, isomorphic networks have equal outputs. In DARTS, where other
    channels of the output follow from another order of the nodes, with all weights equal."""
    x = torch.randn(4, space.channels, *space.sides, generator=torch.Generator().manual_seed(0)).double()
    rng, checked = np.random.default_rng(0), 0
    for arch in (space.sample(rng) for _ in range(count)):
        other = space.representative(arch)
        checked += other != arch
        outputs = []
        for member in {arch, other}:
            net = build(space, member, seed=0).double().train()
            with torch.no_grad():
                for parameter in net.parameters():
                    if space.family == "darts" and parameter.dim() > 1:
                        parameter.fill_(0.1)
                    elif parameter.dim() == 4:
                        rows = torch.arange(parameter[0].numel(), dtype=torch.float64).sin()
                        parameter.copy_(rows.view_as(parameter[0]).expand_as(parameter))
                outputs.append(net(x) if space.family == "darts" else net.forward_features(x))
        torch.testing.assert_close(outputs[0], outputs[-1])
    assert checked > least


@pytest.mark.parametrize(
    ("space", "text"),
    [
        (TINY_201, "(1, 1, 1, 1, 1, 1)"),
        (TINY_201, "(2, 1, 2, 1, 1, 1)"),
        (TINY_MICRO, "64-41414-0_00_000"),
        (TINY_MICRO, "64-41414-3_00_300"),
        (TINY_MICRO, "64-41414-1_00_000"),
    ],
)
def test_weights_without_effect_have_a_gradient_of_zero(space, text):
    """Without a path from the input to the output (the first of each), and with operations that lead nowhere."""
    arch = space.parse(text)
    net = build(space, arch, seed=0)
    net(torch.randn(4, 1, *space.sides)).square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    if set(arch["edges"]) == {"none"}:
        assert all(not p.grad.any() for p in net.stem.parameters())
