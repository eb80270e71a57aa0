"""Extreme eigenvalues and nuclear norms of the matrices of many places.

A matrix is reduced at once, by LAPACK. For a GPU, where that takes milliseconds each, the option `tensor_cores` keeps
the matrices and reduces all of a size together at the end, by products (entropies of whole spectra in one call).
Legend: N matrices, R rows, C columns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from libranas.core.lazy import torch
from libranas.zero_cost.options import Options

#: Squarings of a matrix; its eigenvalues are then to the power 2**SQUARINGS. The largest eigenvalue is too small by at
#: most 1 / (e 2**SQUARINGS) of the largest absolute one, even where the second largest is as close as it can be.
SQUARINGS = 40
#: Steps of Newton and Schulz. Singular values below 1.5**-STEPS of the largest are missed in part.
STEPS = 40
#: Entries of the matrices that are reduced together.
TOGETHER = 2**27


@dataclass(frozen=True)
class Spectral:
    """A number made from the spectrum of a matrix; NaN where an entry is not finite.

    Attributes
    ----------
    exact : callable (matrix) -> tensor without dimensions, by LAPACK
    together : callable (matrices of one shape, first dimension N) -> (N,)
    """

    exact: Callable
    together: Callable

    def at(self, matrix: torch.Tensor, options: Options) -> torch.Tensor:
        """What a place keeps: the number, or, for a GPU, the matrix."""
        return matrix if options.tensor_cores else _finite(self.exact, matrix, matrix.isfinite().all())

    def numbers(self, found: Sequence[torch.Tensor | float]) -> list[float]:
        """The numbers of all places, from what :meth:`at` returned."""
        places: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for place, kept in enumerate(found):
            places[tuple(getattr(kept, "shape", ()))].append(place)
        values: dict[int, float] = {}
        for shape, same in places.items():
            kept = [found[place] for place in same]
            values |= zip(same, self._together(kept) if shape else map(float, kept), strict=True)
        return [values[place] for place in range(len(found))]

    def _together(self, matrices: Sequence[torch.Tensor]) -> list[float]:
        values, most = [], max(1, TOGETHER // matrices[0].numel())
        for first in range(0, len(matrices), most):
            stack = torch.stack(matrices[first : first + most])
            values.append(_finite(self.together, stack, stack.isfinite().all(-1).all(-1)))
        return torch.cat(values).tolist()


def _finite(function: Callable, x: torch.Tensor, finite: torch.Tensor) -> torch.Tensor:
    """Apply a function that must see no NaN (found without waiting for the device)."""
    value = function(x.nan_to_num(0.0, 0.0, 0.0)).to(x.device)
    return value.masked_fill(~finite, float("nan"))


def _largest(x_NRR: torch.Tensor) -> torch.Tensor:
    """Of positive semidefinite matrices."""
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
    sizes = x_NRC.abs()
    bound_N = (sizes.sum(-1).amax(-1) * sizes.sum(-2).amax(-1)).sqrt()  # of the largest singular value
    factor_NRC = x_NRC / bound_N.clamp(min=torch.finfo(x_NRC.dtype).tiny)[:, None, None]
    for _ in range(STEPS):
        factor_NRC = 1.5 * factor_NRC - 0.5 * (factor_NRC @ factor_NRC.mT) @ factor_NRC
    return (x_NRC * factor_NRC).sum((-2, -1))


def _entropy(x_NRR: torch.Tensor) -> torch.Tensor:
    """Entropy (nats) of the normalised eigenvalues, negative ones taken for zero."""
    eigenvalues = torch.linalg.eigvalsh(x_NRR).clamp(min=0)
    p = eigenvalues / eigenvalues.sum(-1, keepdim=True)
    return (-p * torch.log(p + 1e-8)).sum(-1)


def _trace(x_NRR: torch.Tensor) -> torch.Tensor:
    return x_NRR.diagonal(dim1=-2, dim2=-1).sum(-1)


#: Of a positive semidefinite matrix, of a symmetric one, and the sum of the singular values of any one. Singular values
#: are made on the CPU: on a GPU they took two thirds of the time of all scores (benchmarks/scale/one-gpu.json).
LARGEST = Spectral(lambda x_RR: torch.linalg.eigvalsh(x_RR)[-1], _largest)
SMALLEST = Spectral(lambda x_RR: torch.linalg.eigvalsh(x_RR)[0], _smallest)
NUCLEAR = Spectral(lambda x_RC: torch.linalg.matrix_norm(x_RC.cpu(), "nuc"), _nuclear)
#: All of a size in one call; of products there is no form.
ENTROPY = Spectral(_entropy, _entropy)
