"""What proxies of the gradients of units share."""

import math

import torch

from libranas.zero_cost.captures import Gradient
from libranas.zero_cost.proxy import Undefined

#: Weights with a standard deviation up to this fraction of the layer's median count as constant
#: (dead units have exactly zero) and are left out of sums of 1/std.
CONSTANT = 1e-12


def _total(values: torch.Tensor) -> torch.Tensor:
    return values.sum(dtype=torch.float64)


def _varying(std_OI: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The standard deviations of the weights that vary, and the mask of those (None: all of them).

    Where some are not finite none is left out, so that the sum shows it.
    """
    low, high = torch.stack(torch.aminmax(std_OI)).tolist()
    # The median is at most the maximum. It takes far longer than all the rest here and is seldom needed.
    if low > CONSTANT * high or not math.isfinite(high):
        return std_OI, None
    kept_OI = std_OI > CONSTANT * std_OI.median()
    return std_OI[kept_OI], kept_OI


def log_ratio(gradient: Gradient, std_OI: torch.Tensor) -> torch.Tensor:
    """log of the sum over weights of E|g| / `std_OI`; -inf if no weight varies."""
    std, kept_OI = _varying(std_OI)
    mean = gradient.abs_mean_OI if kept_OI is None else gradient.abs_mean_OI[kept_OI]
    return _total(mean / std).log()


def without_empty(logs: list[float]) -> list[float]:
    """Logs of sums over the weights that vary, 0 where there is none; undefined if there is none at all."""
    if all(log == -math.inf for log in logs):
        raise Undefined("no weight of the network has a gradient that varies between the gradient units")
    return [0.0 if log == -math.inf else log for log in logs]
