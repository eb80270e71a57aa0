"""Initial weights from a counter-based generator: equal on every device.

Each number is a function of the seed, the name of its tensor and its place in the tensor, in whatever order the tensors
are drawn (:func:`libranas.core.random.random_words`).
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from libranas.core.random import random_words

_SEED: ContextVar[int | None] = ContextVar("seed", default=None)


@contextmanager
def drawing(seed: int) -> Iterator[None]:
    """Give a seed to :func:`initialise` inside the constructor of a network.

    PyTorch's own draws for its layers are left out, since :func:`initialise` replaces them.
    """
    before = _SEED.set(seed)
    try:
        with _WithoutUsualDraws():
            yield
    finally:
        _SEED.reset(before)


class _WithoutUsualDraws(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (nn.init.kaiming_uniform_, nn.init.uniform_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


class Draw(NamedTuple):
    """A distribution of initial weights: uniform in (-scale, scale), normal around 0, or all equal to `scale`."""

    kind: Literal["uniform", "normal", "constant"]
    scale: float


def usual(module: nn.Module, key: str) -> Draw | None:
    """Return PyTorch's distribution for a parameter of a linear layer or convolution.

    None for every other module: its constructor has set the values.
    """
    if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
        return Draw("uniform", 1 / math.sqrt(module.weight[0].numel()))
    return None


def kaiming_normal(module: nn.Module, key: str) -> Draw | None:
    """Return N(0, 2 / (outputs x kernel)) for a convolution (He et al., 2015), else the usual distribution."""
    if isinstance(module, nn.Conv2d):
        outputs, _, height, width = module.weight.shape
        return Draw("normal", math.sqrt(2 / (outputs * height * width)))
    return usual(module, key)


@torch.no_grad()
def initialise(model: nn.Module, rule: Callable[[nn.Module, str], Draw | None] = usual) -> None:
    """Draw the initial weights of `model`, with the seed of :func:`drawing`, else one from PyTorch's generator.

    Parameters
    ----------
    rule : callable (module, name of its parameter) -> distribution
        None: leave the values as they are.
    """
    seed = _SEED.get()
    if seed is None:
        seed = int(torch.randint(2**62, (), device="cpu"))
    for name, module in model.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            if parameter.is_meta or not (draw := rule(module, key)):
                continue
            if draw.kind == "constant":
                parameter.fill_(draw.scale)
                continue
            values = uniform(seed, f"{name}.{key}", parameter.numel())
            if draw.kind == "normal":
                values = values.erfinv_().mul_(math.sqrt(2))
            parameter.copy_(values.mul_(draw.scale).view(parameter.shape))


def uniform(seed: int, name: str, count: int) -> torch.Tensor:
    """Return `count` numbers in (-1, 1), float64; neither end occurs."""
    words = random_words(-(-count // 2), seed, name).view(np.int32)[:count]
    return torch.from_numpy(words).double().mul_(2.0**-31).add_(2.0**-32)
