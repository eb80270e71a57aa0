"""Products on tensor cores, by emulation, and what is made of products of them."""

import pytest
import torch

from libranas.zero_cost import spectra, tensor_cores
from libranas.zero_cost.options import Options
from libranas.zero_cost.spectra import LARGEST, NUCLEAR, SMALLEST, Spectral
from libranas.zero_cost.tensor_cores import halves, on_tensor_cores, product


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
    high, low, power = halves(x)
    assert high.dtype == low.dtype == torch.float16
    assert error((high.double() + low.double()) * power.double(), x.double()) < 2.0**-22
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
    nothing, (a, b) = torch.full((2, 7, 6), torch.nan), (random(2, 7, 8), random(2, 8, 6))
    with on_tensor_cores(torch.device("cpu")):
        torch.testing.assert_close(torch.baddbmm(nothing, a, b, beta=0, alpha=0.5), 0.5 * a @ b)


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
