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
from threading import RLock

import torch

from libranas.networks.device import kernel_on

#: The largest entry of a matrix becomes a number from 2**14 to 2**15; the largest float16 number is nearly 2**16.
TOP = 2.0**14
#: Smaller largest entries are taken for this one, so that the product of two scales is a float32 number.
LEAST = 2.0**-60
#: Most entries of a row times a column that tensor cores add up.
INNER = 512
EXPONENT = 0x7F800000
#: Makes operands in one step.
KERNEL = "libranas.zero_cost.operands_kernel"


def halves(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return two float16 tensors and a power of two for each matrix of `x` (..., 1, 1), whose product with the sum of
    both is the matrix. Nothing leaves the device."""
    if kernel := kernel_on(x.device, KERNEL):
        return kernel.halves(x)
    largest = torch.linalg.vector_norm(x, torch.inf, (-2, -1), keepdim=True)
    power = (largest.view(torch.int32) & EXPONENT).view(torch.float32).clamp(min=LEAST)
    scaled = x * (TOP / power)
    high = scaled.half()
    return high, (scaled - high).half(), power / TOP


def left(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what tensor cores multiply for a left matrix (..., M, K), and the powers of two of :func:`halves`.

    It is (..., M, 3 K): halves of `INNER` entries at a time, in the order in which their products are added up.
    """
    if kernel := kernel_on(x.device, KERNEL):
        return kernel.left(x)
    high, low, power = halves(x)
    pairs = zip(high.split(INNER, -1), low.split(INNER, -1), strict=True)
    return torch.cat([part for h, l in pairs for part in (h, l, h)], -1), power


def right(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the same for a right matrix (..., K, N): (..., 3 K, N)."""
    if kernel := kernel_on(x.device, KERNEL):
        return kernel.right(x)
    high, low, power = halves(x)
    pairs = zip(high.split(INNER, -2), low.split(INNER, -2), strict=True)
    return torch.cat([part for h, l in pairs for part in (l, h, h)], -2), power


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return ``a @ b`` for float32 matrices, or batches of them."""
    found, power = _unscaled(a, b)
    return found.mul_(power)


def _unscaled(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a product and the powers of two that it is to be multiplied by."""
    (a_halves, a_power), (b_halves, b_power) = left(a), right(b)
    parts = [slice(first, first + 3 * INNER) for first in range(0, a_halves.shape[-1], 3 * INNER)]
    found = multiply(a_halves[..., parts[0]], b_halves[..., parts[0], :])
    for part in parts[1:]:
        found += multiply(a_halves[..., part], b_halves[..., part, :])
    return found, a_power * b_power


def multiply(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the product of float16 matrices in float32."""
    if not a.is_cuda:
        return (a.double() @ b.double()).float()
    return (torch.mm if a.dim() == 2 else torch.bmm)(a, b, out_dtype=torch.float32)


#: PyTorch's products of two matrices, and where these are among the arguments.
PRODUCTS = {"mm": 0, "mm.out": 0, "bmm": 0, "bmm.out": 0, "addmm": 1, "baddbmm": 1}
_ONE_AT_A_TIME = RLock()


@contextmanager
def on_tensor_cores(device: torch.device) -> Iterator[None]:
    """Compute all products of two float32 matrices on a kind of device by :func:`product` for a while.

    Products with a vector, convolutions and fused attention stay as they are. PyTorch's kernels are replaced in the
    whole process: a mode of PyTorch would cost ten times as long for every operation, whatever it is. Other threads
    wait for their turn.
    """
    with _ONE_AT_A_TIME:
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
    found, power = _unscaled(*args[place : place + 2])
    if place and beta == 0:  # what is not added may be anything
        return found.mul_(power).mul_(alpha)
    if place:
        return torch.addcmul(args[0] if beta == 1 else beta * args[0], found, power, value=alpha)
    return torch.mul(found, power, out=found if out is None else out)


def _fits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Return whether both are float32 and not empty, and neither is a single row or column."""
    if not a.dtype == b.dtype == torch.float32:
        return False
    return min(*a.shape[-2:], *b.shape[-2:]) > 1 and a.numel() > 0
