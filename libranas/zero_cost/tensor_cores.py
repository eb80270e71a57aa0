"""Matrix products of float32 on the tensor cores of a GPU, nearly as exact as float32.

A float32 number times a power of two is the sum of two float16 numbers, to 22 bits. A product of two matrices is then
three products of float16 numbers, which tensor cores add up in float32, several times as fast as ordinary cores
multiply float32 numbers (Ootomo and Yokota, 2022). They cut partial sums off where float32 rounds, so the small
products come first and sums are at most `INNER` long; longer ones are added up outside. On a CPU the three products
are made in float64.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch

#: The largest entry of a matrix becomes a number from 2**14 to 2**15; the largest float16 number is nearly 2**16.
TOP = 2.0**14
#: Most entries of a row times a column that tensor cores add up.
INNER = 512
_EXPONENT = 0x7F800000


def halves(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return two float16 tensors whose sum is each matrix of `x` times a power of two, and these powers (..., 1, 1).

    Nothing leaves the device.
    """
    largest = torch.linalg.vector_norm(x, torch.inf, (-2, -1), keepdim=True)
    power = (largest.view(torch.int32) & _EXPONENT).view(torch.float32)
    scale = TOP / power.clamp(min=2.0**-100)
    scaled = x * scale
    high = scaled.half()
    return high, (scaled - high).half(), scale


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
        return (a.double() @ b.double()).float()
    return (torch.mm if a.dim() == 2 else torch.bmm)(a, b, out_dtype=torch.float32)


#: PyTorch's products of two matrices, and where these are among the arguments.
PRODUCTS = {"mm": 0, "mm.out": 0, "bmm": 0, "bmm.out": 0, "addmm": 1, "baddbmm": 1}


@contextmanager
def on_tensor_cores(device: torch.device) -> Iterator[None]:
    """Compute all products of two float32 matrices on a kind of device by :func:`product` for a while.

    Products with a vector, convolutions and fused attention stay as they are. PyTorch's kernels are replaced in the
    whole process: a mode of PyTorch would cost ten times as long for every operation, whatever it is.
    """
    key, library = device.type.upper(), torch.library.Library("aten", "IMPL")
    try:
        for name, place in PRODUCTS.items():
            usual = torch.library.get_kernel(f"aten::{name}", key)
            library.impl(name, partial(_replacing, usual, place), key, with_keyset=True, allow_override=True)
        yield
    finally:
        library._destroy()


def _replacing(usual, place: int, keys, *args, beta=1, alpha=1, out=None) -> torch.Tensor:
    """Compute a product by :func:`product`, or as usual where its matrices are of another kind."""
    if not _fits(*args[place : place + 2]):
        options = {"beta": beta, "alpha": alpha} if place else {} if out is None else {"out": out}
        return usual.call_boxed(keys, *args, **options)
    found = product(*args[place : place + 2])
    if place:
        return torch.add(found if alpha == 1 else alpha * found, args[0], alpha=beta)
    return found if out is None else out.copy_(found)


def _fits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Return whether both are float32 and not empty, and neither is a single row or column."""
    if not a.dtype == b.dtype == torch.float32:
        return False
    return min(*a.shape[-2:], *b.shape[-2:]) > 1 and a.numel() > 0
