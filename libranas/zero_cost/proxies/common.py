"""Arithmetic that several proxies share.

Legend: R rows, C columns, S samples, O x I a weight as a matrix.
"""

from __future__ import annotations

import math

from libranas.core.lazy import torch
from libranas.zero_cost.captures import Gradient
from libranas.zero_cost.proxy import Undefined

#: Weights with a standard deviation up to this fraction of the layer's median are left out of sums of 1/std.
CONSTANT = 1e-12
#: Keeps logarithm and reciprocal finite in jacov and epe_nas.
K = 1e-5
CONSTANT_ROW = "the gradient of the logits is the same at all pixels of an image, so its correlations are undefined"


def numbers(places: list[dict], key: str) -> list[float]:
    """One entry of the dicts of all places, as floats."""
    return [float(place[key]) for place in places]


def only_value(places: list[dict], _) -> tuple[float, dict]:
    """Combine a single place that has the ``value``."""
    return float(places[0]["value"]), {}


def sum_over_layers(places: list[dict], _) -> tuple[float, dict]:
    """Combine numbers ``per_layer``: the sum, and the numbers as a component."""
    per_layer = numbers(places, "per_layer")
    return sum(per_layer), {"per_layer": per_layer}


def without_empty(logs: list[float]) -> list[float]:
    """Logs of sums over the weights that vary, 0 where there is none; undefined if there is none at all."""
    if all(log == -math.inf for log in logs):
        raise Undefined("no weight of the network has a gradient that varies between the gradient units")
    return [0.0 if log == -math.inf else log for log in logs]


def total(values: torch.Tensor) -> torch.Tensor:
    """Sum in float64."""
    return values.sum(dtype=torch.float64)


def varying(std_OI: torch.Tensor, gradient: Gradient) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The standard deviations of the weights that vary, and the mask of those (None: all of them).

    Where some are not finite none is left out, so that the sum shows it. On a GPU all are taken at first, and the pass
    is repeated if that was wrong.
    """
    low, high = torch.aminmax(std_OI)
    if gradient.doubts is not None:
        gradient.doubts.append((low <= CONSTANT * high) & high.isfinite())
        return std_OI, None
    low, high = torch.stack([low, high]).tolist()
    # The median is at most the maximum. It takes far longer than all the rest here and is seldom needed.
    if low > CONSTANT * high or not math.isfinite(high):
        return std_OI, None
    kept_OI = std_OI > CONSTANT * std_OI.median()
    return std_OI[kept_OI], kept_OI


def log_ratio(gradient: Gradient, std_OI: torch.Tensor) -> torch.Tensor:
    """log of the sum over weights of E|g| / `std_OI`; -inf if no weight varies."""
    std, kept_OI = varying(std_OI, gradient)
    mean = gradient.abs_mean_OI if kept_OI is None else gradient.abs_mean_OI[kept_OI]
    return total(mean / std).log()


def correlation(rows_RC: torch.Tensor) -> torch.Tensor:
    """Correlation coefficients between rows, (R, R) in float64; NaN in the row and column of a constant one."""
    rows_RC = rows_RC.double()
    # Compared, not computed: the deviations of a constant row from its mean are rounding noise.
    constant_R = (rows_RC == rows_RC[:, :1]).all(1)
    rows_RC = rows_RC - rows_RC.mean(1, keepdim=True)
    norm_R = torch.linalg.vector_norm(rows_RC, dim=1).masked_fill(constant_R, float("nan"))
    rows_RC = rows_RC / norm_R[:, None]
    return (rows_RC @ rows_RC.T).clamp(-1, 1)


def log_determinant(kernel_SS: torch.Tensor) -> torch.Tensor:
    """log \\|det\\| of kernels (..., S, S) of counts; -inf where one is singular."""
    # Of a singular kernel an LU factorisation returns rounding noise. The numerical rank of integers is a safe test.
    singular = torch.linalg.matrix_rank(kernel_SS, hermitian=True) < kernel_SS.shape[-1]
    return torch.linalg.slogdet(kernel_SS).logabsdet.masked_fill(singular, float("-inf"))
