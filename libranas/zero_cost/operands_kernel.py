"""A Triton kernel for the operands of tensor cores: a number is read for its scale and for its halves, no more.

This module imports Triton, which comes with PyTorch for NVIDIA GPUs.
"""

import torch
import triton
import triton.language as tl

from libranas.zero_cost import tensor_cores
from libranas.zero_cost.tensor_cores import EXPONENT, INNER, LEAST, TOP

#: Numbers of a program.
BLOCK = 1024


def probe(device: torch.device) -> None:
    """Run the kernel once; RuntimeError if its halves are not the usual ones."""
    for size in (1.0, 3e-20, 1e30):
        x = size * torch.linspace(-1, 1, 24).view(2, 3, 4)
        for what in (halves, left, right):
            found, usual = what(x.to(device)), getattr(tensor_cores, what.__name__)(x)
            if not all(torch.equal(one.cpu(), other) for one, other in zip(found, usual, strict=True)):
                raise RuntimeError("its halves are wrong")


def halves(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return :func:`libranas.zero_cost.tensor_cores.halves`, in rows without gaps."""
    x = x.contiguous()
    made = torch.empty(2, *x.shape, dtype=torch.float16, device=x.device)
    return *made, _run(x, x, made, PLANES=True, ALONG=True, LEFT=True)


def left(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return :func:`libranas.zero_cost.tensor_cores.left`, in the memory layout of `x`."""
    return _operand(x, left=True)


def right(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return :func:`libranas.zero_cost.tensor_cores.right`, in the memory layout of `x`."""
    return _operand(x, left=False)


def _operand(x: torch.Tensor, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    turned = x.stride(-1) != 1 and x.stride(-2) == 1
    rows = x.mT if turned else x
    if rows.stride(-1) != 1 or rows.dim() > 3:
        rows = rows.contiguous()
    along = left != turned  # whether the sums run along the rows of the memory
    *batch, height, width = rows.shape
    shape = (*batch, height, 3 * width) if along else (*batch, 3 * height, width)
    made = torch.empty(shape, dtype=torch.float16, device=x.device)
    power = _run(x, rows, made, PLANES=False, ALONG=along, LEFT=left)
    return made.mT if turned else made, power


def _run(x: torch.Tensor, rows: torch.Tensor, made: torch.Tensor, **how: bool) -> torch.Tensor:
    """Fill `made` from `rows`, which are those of the matrices or their columns; return the powers of two."""
    *batch, height, width = rows.shape
    largest = torch.linalg.vector_norm(x, torch.inf, (-2, -1), keepdim=True)
    power = torch.empty_like(largest)
    matrix = rows.stride(-3) if len(batch) == 1 else height * width
    with torch.cuda.device_of(x):  # Triton starts a kernel on the current device
        _fill[(triton.cdiv(height * width, BLOCK) * torch.Size(batch).numel(),)](
            *(rows, largest, made, power, height, width, matrix, rows.stride(-2)),
            **how,
            INNER=INNER,
            EXPONENT=EXPONENT,
            LEAST=LEAST,
            TOP=TOP,
            BLOCK=BLOCK,
        )
    return power


@triton.jit
def _fill(
    x_ptr,
    largest_ptr,
    made_ptr,
    power_ptr,
    height,
    width,
    x_matrix,
    x_row,
    PLANES: tl.constexpr,
    ALONG: tl.constexpr,
    LEFT: tl.constexpr,
    INNER: tl.constexpr,
    EXPONENT: tl.constexpr,
    LEAST: tl.constexpr,
    TOP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    blocks = tl.cdiv(height * width, BLOCK)  # of a matrix; one dimension of the grid, the others end at 65,535
    matrix = (tl.program_id(0) // blocks).to(tl.int64)
    at = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    there = at < height * width
    row, column = (at // width).to(tl.int64), at % width
    x = tl.load(x_ptr + matrix * x_matrix + row * x_row + column, mask=there, other=0.0)

    largest = tl.load(largest_ptr + matrix)
    power = tl.maximum((largest.to(tl.int32, bitcast=True) & EXPONENT).to(tl.float32, bitcast=True), LEAST)
    tl.store(power_ptr + matrix, power * (1 / TOP))
    scaled = x * tl.div_rn(tl.full([], TOP, tl.float32), power)
    high = scaled.to(tl.float16)
    low = (scaled - high.to(tl.float32)).to(tl.float16)

    if PLANES:
        made = made_ptr + matrix * height * width + at
        tl.store(made, high, mask=there)
        tl.store(made + (tl.num_programs(0) // blocks).to(tl.int64) * height * width, low, mask=there)
        return
    # Entry `inner` of a sum lies in the part that begins at `first`, which is `size` long.
    inner, total = (column, width) if ALONG else (row, height)
    first = inner // INNER * INNER
    size = tl.minimum(INNER, total - first)
    place = 2 * first + inner
    made = made_ptr + matrix * 3 * height * width
    if ALONG:
        made, step = made + row * 3 * width + place, size
    else:
        made, step = made + place * width + column, size * width
    tl.store(made, high if LEFT else low, mask=there)
    tl.store(made + step, low if LEFT else high, mask=there)
    tl.store(made + 2 * step, high, mask=there)
