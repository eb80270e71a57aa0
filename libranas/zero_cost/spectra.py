"""Extreme eigenvalues and nuclear norms of many matrices.

By LAPACK one matrix after the other, or, for a GPU, where that takes milliseconds each, by products of all matrices
of a size at once. Legend: N matrices, R rows, C columns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from libranas.core.lazy import torch

#: Squarings of a matrix; its eigenvalues are then to the power 2**SQUARINGS. The largest eigenvalue is too small by at
#: most 1 / (e 2**SQUARINGS) of the largest absolute one, even where the second largest is as close as it can be.
SQUARINGS = 40
#: Steps of Newton and Schulz. Singular values below 1.5**-STEPS of the largest are missed in part.
STEPS = 40


def largest_eigenvalues(symmetric: Sequence[torch.Tensor], by_products: bool = False) -> list[float]:
    """Largest eigenvalue of each positive semidefinite matrix (R, R); NaN where an entry is not finite."""
    return _of_each(symmetric, _largest if by_products else lambda x_NRR: torch.linalg.eigvalsh(x_NRR)[:, -1])


def smallest_eigenvalues(symmetric: Sequence[torch.Tensor], by_products: bool = False) -> list[float]:
    """Smallest eigenvalue of each symmetric matrix (R, R); NaN where an entry is not finite."""
    return _of_each(symmetric, _smallest if by_products else lambda x_NRR: torch.linalg.eigvalsh(x_NRR)[:, 0])


def nuclear_norms(matrices: Sequence[torch.Tensor], by_products: bool = False) -> list[float]:
    """Sum of the singular values of each matrix (R, C); NaN where an entry is not finite."""
    # Singular values are slow on a GPU, two thirds of all scores there (benchmarks/scale/one-gpu.json).
    return _of_each(matrices, _nuclear if by_products else lambda x_NRC: torch.linalg.matrix_norm(x_NRC.cpu(), "nuc"))


def _of_each(matrices: Sequence[torch.Tensor], function: Callable) -> list[float]:
    """Apply a function of a stack of matrices to all matrices of a shape at once; copy all numbers together."""
    places: dict[torch.Size, list[int]] = defaultdict(list)
    for place, matrix in enumerate(matrices):
        places[matrix.shape].append(place)
    found = []
    for same in places.values():
        stack = torch.stack([matrices[place] for place in same])
        finite_N = stack.isfinite().all(-1).all(-1)
        value_N = function(stack.nan_to_num(0.0, 0.0, 0.0))
        found.append(value_N.to(stack.device).masked_fill(~finite_N, float("nan")))
    numbers = torch.cat(found).tolist() if found else []
    order = [place for same in places.values() for place in same]
    return [numbers[k] for k in sorted(range(len(order)), key=order.__getitem__)]


def _largest(x_NRR: torch.Tensor) -> torch.Tensor:
    tiny = torch.finfo(x_NRR.dtype).tiny
    # Squared often enough, a matrix of trace 1 is the mean of the projections on its leading eigenvectors.
    projection_NRR = x_NRR
    for _ in range(SQUARINGS):
        projection_NRR = projection_NRR / _trace(projection_NRR).clamp(min=tiny)[:, None, None]
        projection_NRR = projection_NRR @ projection_NRR
    projection_NRR = projection_NRR / _trace(projection_NRR).clamp(min=tiny)[:, None, None]
    return (x_NRR * projection_NRR).sum((-2, -1))


def _smallest(x_NRR: torch.Tensor) -> torch.Tensor:
    bound_N = x_NRR.abs().sum(-1).amax(-1)  # no eigenvalue is larger (Gershgorin)
    return bound_N - _largest(torch.diag_embed(bound_N[:, None].expand(-1, x_NRR.shape[-1])) - x_NRR)


def _nuclear(x_NRC: torch.Tensor) -> torch.Tensor:
    """trace(U^T X) with the orthogonal factor U of the polar decomposition of X."""
    if x_NRC.shape[-2] > x_NRC.shape[-1]:
        x_NRC = x_NRC.mT
    sums = x_NRC.abs()
    bound_N = (sums.sum(-1).amax(-1) * sums.sum(-2).amax(-1)).sqrt()  # of the largest singular value
    factor_NRC = x_NRC / bound_N.clamp(min=torch.finfo(x_NRC.dtype).tiny)[:, None, None]
    for _ in range(STEPS):
        factor_NRC = 1.5 * factor_NRC - 0.5 * (factor_NRC @ factor_NRC.mT) @ factor_NRC
    return (x_NRC * factor_NRC).sum((-2, -1))


def _trace(x_NRR: torch.Tensor) -> torch.Tensor:
    return x_NRR.diagonal(dim1=-2, dim2=-1).sum(-1)
