"""Triton kernels without a GPU: their values in Triton's interpreter, and whether they compile for one."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from libranas.networks import build
from libranas.spaces import make_space
from libranas.zero_cost import tensor_cores
from libranas.zero_cost.gradient_moments import Moments, Wanted

triton = pytest.importorskip("triton", reason="Triton comes with PyTorch for NVIDIA GPUs")

#: Run in a process of its own: Triton decides at its import whether it interprets.
INTERPRETED = """
import sys, torch
from libranas.networks import build, initial_weights, weights_kernel
from libranas.zero_cost import operands_kernel
from libranas.zero_cost.moments_kernel import FusedMoments

space, arch, statistics, batches, matrices = torch.load(sys.argv[1], weights_only=False)
initial_weights.kernel_on = lambda *where: weights_kernel
found = {"weights": build(space, arch, 3).state_dict(), "moments": []}
for wanted in statistics:
    moments = FusedMoments(wanted)
    for a, d in batches:
        moments.add_products(a, d)
    found["moments"].append(moments)
for name in ("halves", "left", "right"):
    found[name] = [getattr(operands_kernel, name)(x) for x in matrices]
operands_kernel.probe(torch.device("cpu"))
torch.save(found, sys.argv[1])
"""
SPACE = make_space({"family": "autoformer", "preset": "digits"}, 8, 1, 10)
ARCH = SPACE.sample(np.random.default_rng(1))
WANTED = Wanted(spread=True), Wanted(mean=True, spread=True, signs=True), Wanted(mean=True, signs=True)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


#: Two batches of units, in groups, with edges of tiles in all directions.
BATCHES = [(random(5, 2, 37, 70, seed=seed), random(5, 2, 37, 66, seed=seed + 2) * 1e-5) for seed in (0, 1)]
#: Matrices alone and in batches, in both memory layouts, with rows that are views, longer than a sum, and of any size.
MATRICES = [random(7, 5), random(3, 20, 1030), random(2, 600, 33).mT, random(6, 4, 8, 10)[:, 1], random(3, 2, 5, 7)]
MATRICES += [random(6, 8, 9)[:, 2].reshape(6, 9), torch.zeros(3, 4), random(4, 4) * 3e-20, random(4, 4) * 1e30]


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory) -> dict:
    path = tmp_path_factory.mktemp("kernels") / "found.pt"
    torch.save((SPACE, ARCH, WANTED, BATCHES, MATRICES), path)
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, "-c", INTERPRETED, path], env=environment, check=True)
    return torch.load(path, weights_only=False)


def test_all_initial_weights_come_from_one_start(interpreted):
    expected, found = build(SPACE, ARCH, 3).state_dict(), interpreted["weights"]
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("name", ["halves", "left", "right"])
def test_operands_are_equal_to_the_bit(interpreted, name):
    for x, found in zip(MATRICES, interpreted[name], strict=True):
        assert all(map(torch.equal, found, getattr(tensor_cores, name)(x)))


@pytest.mark.parametrize("wanted", WANTED, ids=str)
def test_moments(interpreted, wanted):
    fused = interpreted["moments"][WANTED.index(wanted)]
    exact, plain = Moments(wanted), Moments(wanted)
    for a, d in BATCHES:
        exact.add_products(a.double(), d.double())
        plain.add_products(a, d)
    for statistic in ("signed", "absolute"):
        for part in ("mean", "m2"):
            expected, found = (getattr(getattr(m, statistic), part) for m in (exact, fused))
            assert (expected is None) == (found is None)
            if expected is not None:
                assert error(found, expected) < 3 * error(getattr(getattr(plain, statistic), part), expected)
    if wanted.signs:
        assert (fused.sign_sum != exact.sign_sum).float().mean() < 1e-3
    assert fused.units == 10


def compiled(
    module: str, function: str, types: dict[str, str], even: tuple[str, ...] = (), warps: int = 4, **constants
):
    """Compile a kernel for sm_90; arguments are int32 but for pointers, by default to float32.

    `even`: numbers that 16 divides, as it divides all addresses.
    """
    from triton.backends.compiler import GPUTarget

    kernel = getattr(importlib.import_module(f"libranas.{module}"), function)
    names = kernel.arg_names
    kinds = {name: types.get(name, "*fp32") for name in names if name.endswith("_ptr")}
    signature = {name: kinds.get(name, "constexpr" if name in constants else "i32") for name in names}
    divisible = [k for k, name in enumerate(names) if name in kinds or name in even]
    source = triton.compiler.ASTSource(
        fn=kernel,
        signature=signature,
        constexprs=constants,
        attrs={(k,): [["tt.divisibility", 16]] for k in divisible},
    )
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})


def spilled(kernel, folder: Path) -> dict[str, str]:
    """Bytes a thread that are moved out of the registers."""
    (path := folder / "kernel.cubin").write_bytes(kernel.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    said = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True, check=True)
    return dict(re.findall(r"(STACK|LOCAL):(\d+)", said.stdout + said.stderr))


NOTHING = {"STACK": "0", "LOCAL": "0"}


@pytest.mark.parametrize("everything", [False, True])
def test_moments_compile_for_hopper(everything, tmp_path):
    """Tensor cores are used, and what a program holds fits."""
    from libranas.zero_cost.moments_kernel import ALL, SPREAD

    rows, columns, step, warps = ALL if everything else SPREAD
    halves = dict.fromkeys(("a_high_ptr", "a_low_ptr", "d_high_ptr", "d_low_ptr"), "*fp16")
    constants = {"MEAN": everything, "SIGNS": everything, "ROWS": rows, "COLUMNS": columns, "STEP": step}
    kernel = compiled("zero_cost.moments_kernel", "_moments", halves, ("width", "height"), warps, **constants)
    assert "wgmma" in kernel.asm["ptx"]
    assert kernel.metadata.shared <= 227 * 1024
    assert spilled(kernel, tmp_path) == NOTHING


@pytest.mark.parametrize("how", [(True, True, True), (False, True, True), (False, False, True), (False, True, False)])
def test_operands_compile_for_hopper(how, tmp_path):
    from libranas.zero_cost.operands_kernel import BLOCK

    constants = dict(zip(("PLANES", "ALONG", "LEFT"), how, strict=True)) | {"BLOCK": BLOCK}
    constants |= {name: getattr(tensor_cores, name) for name in ("INNER", "EXPONENT", "LEAST", "TOP")}
    kernel = compiled("zero_cost.operands_kernel", "_fill", {"made_ptr": "*fp16"}, **constants)
    assert spilled(kernel, tmp_path) == NOTHING


def test_weights_compile_for_hopper(tmp_path):
    from libranas.networks.weights_kernel import STATES

    types = {"made_ptr": "*fp64", "table_ptr": "*i64"}
    assert spilled(compiled("networks.weights_kernel", "_uniform", types, STATES=STATES), tmp_path) == NOTHING
