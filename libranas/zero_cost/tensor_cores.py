"""Matrix products of float32 on the tensor cores of a GPU, nearly as exact as float32.

A float32 number times a power of two is the sum of two float16 numbers, to 22 bits. A product of two matrices is then
three products of float16 numbers, which tensor cores add up in float32, several times as fast as ordinary cores
multiply float32 numbers (Ootomo and Yokota, 2022). They cut partial sums off where float32 rounds, so the small
products come first and sums are at most `INNER` long; longer ones are added up outside. On a CPU the products are made
in float32.
"""

from typing import ClassVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode

#: The largest entry of a matrix becomes a number from 2**14 to 2**15; the largest float16 number is nearly 2**16.
TOP = 2.0**14
#: Most entries of a row times a column that tensor cores add up.
INNER = 512
_EXPONENT = 0x7F800000


def halves(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return two float16 tensors whose sum is each matrix of `x` times a power of two, and these powers (..., 1, 1).

    Nothing leaves the device.
    """
    largest = x.abs().amax((-2, -1), keepdim=True)
    power = (largest.view(torch.int32) & _EXPONENT).view(torch.float32)
    scale = TOP / power.clamp(min=2.0**-100)
    scaled = x * scale
    high = scaled.half()
    return high, (scaled - high.float()).half(), scale


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return ``a @ b`` for float32 matrices, or batches of them."""
    (a_high, a_low, a_scale), (b_high, b_low, b_scale) = halves(a), halves(b)
    found = None
    for first in range(0, a.shape[-1], INNER):
        part = slice(first, first + INNER)
        left = torch.cat([a_high[..., part], a_low[..., part], a_high[..., part]], -1)
        right = torch.cat([b_low[..., part, :], b_high[..., part, :], b_high[..., part, :]], -2)
        found = multiply(left, right) if found is None else found + multiply(left, right)
    return found / a_scale / b_scale


def multiply(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the product of float16 matrices in float32."""
    if not a.is_cuda:
        return a.float() @ b.float()
    return (torch.mm if a.dim() == 2 else torch.bmm)(a, b, out_dtype=torch.float32)


class TensorCores(TorchDispatchMode):
    """Compute products of two float32 matrices by :func:`product`.

    Products with a vector, convolutions and fused attention stay as they are.
    """

    #: Operation -> where its two matrices are among the arguments.
    products: ClassVar[dict] = {
        torch.ops.aten.mm.default: 0,
        torch.ops.aten.mm.out: 0,
        torch.ops.aten.bmm.default: 0,
        torch.ops.aten.bmm.out: 0,
        torch.ops.aten.addmm.default: 1,
        torch.ops.aten.baddbmm.default: 1,
    }

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        place = self.products.get(function)
        if place is None or not _fits(*args[place : place + 2]):
            return function(*args, **kwargs)
        found = product(*args[place : place + 2])
        if place:
            return kwargs.get("beta", 1) * args[0] + kwargs.get("alpha", 1) * found
        return kwargs["out"].copy_(found) if "out" in kwargs else found


def _fits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Return whether both are float32 and not empty, and neither is a single row or column."""
    if not a.dtype == b.dtype == torch.float32:
        return False
    return min(*a.shape[-2:], *b.shape[-2:]) > 1 and a.numel() > 0
