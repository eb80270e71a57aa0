"""Arithmetic for a GPU, without one: products by emulation, the kernel in Triton's interpreter and compiled."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from libranas.zero_cost import spectra, tensor_cores
from libranas.zero_cost.gradient_moments import Moments, Wanted
from libranas.zero_cost.options import Options
from libranas.zero_cost.spectra import LARGEST, NUCLEAR, SMALLEST, Spectral
from libranas.zero_cost.tensor_cores import halves, on_tensor_cores, product

MODULE = "libranas.zero_cost.moments_kernel"


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [1.0, 3e-20, 4e10])
@pytest.mark.parametrize("batch", [(), (3,)])
def test_a_product_is_as_exact_as_of_float32(size, batch):
    a, b = random(*batch, 40, 300) * size, random(*batch, 300, 50, seed=1)
    exact = a.double() @ b.double()
    assert 0 < error(product(a, b), exact) < 2 * error(a @ b, exact)


def test_every_matrix_of_a_batch_has_its_own_scale():
    a, b = random(4, 20, 30) * torch.tensor([1.0, 1e-9, 0.0, 1e9])[:, None, None], random(4, 30, 10, seed=1)
    for found, of_a, of_b in zip(product(a, b), a.double(), b.double(), strict=True):
        torch.testing.assert_close(found.double(), of_a @ of_b, rtol=1e-4, atol=1e-6 * float(of_a.abs().max()))


def cut_off(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """A product of tensor cores that cut every partial sum of 16 products off to 24 bits: the worst that is known."""
    found = torch.zeros(len(a), b.shape[1], dtype=torch.float64)
    for first in range(0, a.shape[1], 16):
        mantissa, exponent = torch.frexp(found + a[:, first : first + 16].double() @ b[first : first + 16].double())
        found = torch.ldexp((mantissa * 2**24).trunc(), exponent - 24)
    return found.float()


def test_long_sums_stay_exact_where_tensor_cores_cut_off(monkeypatch):
    """Without rounding the error grows with the length of a sum."""
    a, b = random(6, 12608), random(12608, 7, seed=1).abs()
    a, exact = a.abs(), a.abs().double() @ b.double()
    monkeypatch.setattr(tensor_cores, "multiply", cut_off)
    assert error(product(a, b), exact) < 3e-6
    monkeypatch.setattr(tensor_cores, "INNER", 12608)
    assert error(product(a, b), exact) > 1e-5


def test_two_halves_hold_22_bits():
    x = random(10, 100)
    high, low, scale = halves(x)
    assert high.dtype == low.dtype == torch.float16
    assert error((high.double() + low.double()) / scale.double(), x.double()) < 2.0**-22
    assert not any(part.any() for part in halves(torch.zeros(3, 2))[:2])


def test_products_of_a_network_and_its_gradients_go_through_it():
    layer, x = torch.nn.Linear(30, 20), random(50, 30)
    with on_tensor_cores(torch.device("cpu")):
        y = layer(x)
        found = torch.autograd.grad(y.square().sum(), list(layer.parameters()))
        queries = torch.baddbmm(random(2, 1, 6), random(2, 7, 8), random(2, 8, 6), beta=0.5, alpha=2.0)
        assert torch.bmm(torch.ones(0, 2, 3), torch.ones(0, 3, 2)).shape == (0, 2, 2)
    assert not torch.equal(y, layer(x))  # another arithmetic
    torch.testing.assert_close(y, layer(x))
    torch.testing.assert_close(found, torch.autograd.grad(layer(x).square().sum(), list(layer.parameters())))
    expected = torch.baddbmm(random(2, 1, 6), random(2, 7, 8), random(2, 8, 6), beta=0.5, alpha=2.0)
    torch.testing.assert_close(queries, expected)


def symmetric(eigenvalues: list[float]) -> torch.Tensor:
    size = len(eigenvalues)
    basis, _ = torch.linalg.qr(random(size, size).double())
    return basis @ torch.tensor(eigenvalues, dtype=torch.float64).diag() @ basis.T


SPECTRA = {
    "apart": [0.5, 3.0, 1.0, 7.0],
    "close": [1.0 - 1e-9, 1.0, 1.0 - 1e-5, 0.3],
    "equal": [2.0, 2.0, 2.0],
    "singular": [0.0, 0.0, 4.0, 1e-7],
    "nothing": [0.0, 0.0],
    "many": [1 / (1 + k) for k in range(60)],
}


def test_eigenvalues_and_nuclear_norms_by_products_are_those_of_lapack(monkeypatch):
    matrices = [symmetric(values) for values in SPECTRA.values()]
    matrices += [torch.full((2, 2), float("nan"), dtype=torch.float64)]
    for spectral, tolerance in {LARGEST: 1e-9, SMALLEST: 1e-9, NUCLEAR: 1e-7}.items():
        assert by_products(spectral, matrices) == pytest.approx(
            spectral.numbers([spectral.at(matrix, Options()) for matrix in matrices]),
            rel=tolerance,
            abs=1e-11,
            nan_ok=True,
        )
    tall = [random(9, 5).double(), random(5, 9).double(), random(9, 5, seed=1).double()]
    expected = pytest.approx([float(torch.linalg.svdvals(x).sum()) for x in tall], rel=1e-12)
    assert by_products(NUCLEAR, tall) == expected
    monkeypatch.setattr(spectra, "TOGETHER", 1)
    assert by_products(NUCLEAR, tall) == expected
    assert by_products(NUCLEAR, []) == []


def by_products(spectral: Spectral, matrices: list[torch.Tensor]) -> list[float]:
    return spectral.numbers([spectral.at(matrix, Options(tensor_cores=True)) for matrix in matrices])


#: Run in a process of its own: Triton decides at its import whether it interprets.
INTERPRETED = """
import sys, torch
from libranas.zero_cost.gradient_moments import Wanted
from libranas.zero_cost.moments_kernel import FusedMoments
wanted, batches = torch.load(sys.argv[1], weights_only=False)
moments = FusedMoments(wanted)
for a, d in batches:
    moments.add_products(a, d)
torch.save(moments, sys.argv[1])
"""


@pytest.mark.parametrize(
    "wanted", [Wanted(spread=True), Wanted(mean=True, spread=True, signs=True), Wanted(mean=True, signs=True)]
)
def test_the_kernel_gives_the_moments(wanted, tmp_path):
    """Over two batches of units, in groups, with edges of tiles in all directions."""
    pytest.importorskip("triton", reason="Triton comes with PyTorch for NVIDIA GPUs")
    batches = [(random(5, 2, 37, 70, seed=seed), random(5, 2, 37, 66, seed=seed + 2) * 1e-5) for seed in (0, 1)]
    torch.save((wanted, batches), tmp_path / "moments.pt")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, "-c", INTERPRETED, tmp_path / "moments.pt"], env=environment, check=True)
    fused = torch.load(tmp_path / "moments.pt", weights_only=False)
    exact, plain = Moments(wanted), Moments(wanted)
    for a, d in batches:
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


@pytest.mark.parametrize("everything", [False, True])
def test_the_kernel_compiles_for_hopper(everything, tmp_path):
    """Tensor cores of sm_90 are used, and what a program holds fits."""
    triton = pytest.importorskip("triton", reason="Triton comes with PyTorch for NVIDIA GPUs")
    from triton.backends.compiler import GPUTarget

    module = importlib.import_module(MODULE)
    rows, columns, step, warps = module.ALL if everything else module.SPREAD
    constants = {"MEAN": everything, "SIGNS": everything, "ROWS": rows, "COLUMNS": columns, "STEP": step}
    names = module._moments.arg_names
    kinds = {name: "*fp16" if name[2:] in ("high_ptr", "low_ptr") else "*fp32" for name in names if name[-4:] == "_ptr"}
    signature = {name: kinds.get(name, "constexpr" if name in constants else "i32") for name in names}
    # What Triton itself sees where 16 divides an address or a width.
    even = [k for k, name in enumerate(names) if name in kinds or name in ("width", "height")]
    source = triton.compiler.ASTSource(
        fn=module._moments,
        signature=signature,
        constexprs=constants,
        attrs={(k,): [["tt.divisibility", 16]] for k in even},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
    assert "wgmma" in compiled.asm["ptx"]
    assert compiled.metadata.shared <= 227 * 1024
    (path := tmp_path / "kernel.cubin").write_bytes(compiled.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    said = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True, check=True)
    usage = dict(re.findall(r"(STACK|LOCAL):(\d+)", said.stdout + said.stderr))
    assert usage == {"STACK": "0", "LOCAL": "0"}  # nothing is moved out of the registers
