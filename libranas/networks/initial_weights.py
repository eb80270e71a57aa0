"""Initial weights from a counter-based generator: equal on every device.

Each number is a function of the seed, the name of its tensor and its place in the tensor, in whatever order the tensors
are drawn (:func:`libranas.core.random.random_words`). They are made where the tensor lives.
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

from libranas.core.random import random_words, stream_key
from libranas.networks.device import kernel_on

#: Makes the numbers of all tensors at once.
KERNEL = "libranas.networks.weights_kernel"
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
    with torch._C.DisableTorchFunction():  # the modes around a constructor would look at every operation
        _initialise(model, seed, rule)


def _initialise(model: nn.Module, seed: int, rule: Callable[[nn.Module, str], Draw | None]) -> None:
    drawn = []
    for name, module in model.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            if parameter.is_meta or not (draw := rule(module, key)):
                continue
            if draw.kind == "constant":
                parameter.fill_(draw.scale)
            else:
                drawn.append((f"{name}.{key}", parameter, draw))
    drawn.sort(key=lambda one: one[2].kind)  # the normal ones first
    together = drawn and kernel_on(drawn[0][1].device, KERNEL)
    for some in [drawn] if together else [[one] for one in drawn]:  # one tensor stays in the cache of a CPU
        _draw(seed, some)


def _draw(seed: int, drawn: list[tuple[str, nn.Parameter, Draw]]) -> None:
    """Draw the values of tensors on one device, first those from normal distributions; one tensor without a kernel."""
    device, counts = drawn[0][1].device, [(name, parameter.numel()) for name, parameter, _ in drawn]
    if kernel := kernel_on(device, KERNEL):
        values, places = kernel.uniform(seed, counts, device)
    else:
        values, places = uniform(seed, *counts[0], device), [0]
    normal = sum(draw.kind == "normal" for *_, draw in drawn)
    values[: [*places, len(values)][normal]].erfinv_().mul_(math.sqrt(2))
    parts = [values[place : place + count] for place, (_, count) in zip(places, counts, strict=True)]
    torch._foreach_mul_(parts, [draw.scale for *_, draw in drawn])
    torch._foreach_copy_(
        [parameter for _, parameter, _ in drawn],
        [part.view(parameter.shape) for part, (_, parameter, _) in zip(parts, drawn, strict=True)],
    )


def uniform(seed: int, name: str, count: int, device: torch.device | None = None) -> torch.Tensor:
    """Return `count` numbers in (-1, 1), float64, on a device (default: the CPU); neither end occurs."""
    words = -(-count // 2)
    if device is None or device.type == "cpu":  # NumPy's generator is several times as fast there
        made = torch.from_numpy(random_words(words, seed, name).view(np.int64))
    else:
        made = words_on(device, words, seed, name)
    return made.view(torch.int32)[:count].double().mul_(2.0**-31).add_(2.0**-32)


#: Philox 4x64: two multipliers, and what is added to the two halves of the key in every round (Salmon et al., 2011).
_MULTIPLIERS, _WEYL = (0xD2E7470EE14C6C93, 0xCA5A826395121157), (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_HALF = 2**32 - 1


def words_on(device: torch.device, count: int, seed: int, name: str) -> torch.Tensor:
    """Return :func:`libranas.core.random.random_words` made on any device: int64 with the same bits."""
    key = stream_key(seed, name)
    keys = [key % 2**64, key >> 64]
    a, b, c, d = torch.zeros(4, -(-count // 4), dtype=torch.int64, device=device)
    a += torch.arange(1, len(a) + 1, device=device)  # NumPy counts from one
    for _ in range(10):
        (high_a, low_a), (high_c, low_c) = _product(a, _MULTIPLIERS[0]), _product(c, _MULTIPLIERS[1])
        a, b, c, d = high_c ^ b ^ _signed(keys[0]), low_c, high_a ^ d ^ _signed(keys[1]), low_a
        keys = [k + w for k, w in zip(keys, _WEYL, strict=True)]
    return torch.stack([a, b, c, d], dim=1).flatten()[:count]


def _product(words: torch.Tensor, factor: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the upper and the lower 64 bits of unsigned products; PyTorch has signed words alone, which wrap."""
    low, high = words & _HALF, words >> 32 & _HALF
    factor_low, factor_high = factor & _HALF, factor >> 32
    low_high, high_low = low * factor_high, high * factor_low
    middle = (low * factor_low >> 32 & _HALF) + (low_high & _HALF) + (high_low & _HALF)
    upper = high * factor_high + (low_high >> 32 & _HALF) + (high_low >> 32 & _HALF) + (middle >> 32)
    return upper, words * _signed(factor)


def _signed(word: int) -> int:
    """Return the int64 with the bits of an unsigned word, whose upper bits are dropped."""
    return (word + 2**63) % 2**64 - 2**63
