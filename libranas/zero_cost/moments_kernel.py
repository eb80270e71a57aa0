"""A Triton kernel for the statistics of a weight's gradient over units: the gradients of the units are never in memory.

Each program makes a tile of the weight. It goes through the units, multiplies on the tensor cores (three products of
float16 numbers, see :mod:`libranas.zero_cost.tensor_cores`), and updates mean and squared deviations in registers
(Welford, 1962). This module imports Triton, which comes with PyTorch for NVIDIA GPUs.
Legend: U units, G groups, K positions of a unit, I in, O out.
"""

import torch
import triton
import triton.language as tl

from libranas.zero_cost.gradient_moments import Moments
from libranas.zero_cost.tensor_cores import halves

#: Tile (rows O, columns I, positions K) and warps, alone and with mean and signs: what fits in the registers of sm_90
#: where 16 divides the widths of the weight.
SPREAD, ALL = (128, 128, 32, 8), (64, 64, 32, 4)
#: Pointers are 32 bits wide.
MOST = 2**31


class FusedMoments(Moments):
    """As :class:`Moments`, by the kernel where it has what is wanted."""

    def add_products(self, a_UGKI: torch.Tensor, d_UGKO: torch.Tensor) -> None:
        wanted, small = self.wanted, max(a_UGKI.numel(), d_UGKO.numel()) < MOST
        if wanted.accumulated or not wanted.of_units or a_UGKI.dtype != torch.float32 or not small:
            super().add_products(a_UGKI, d_UGKO)
            return
        made = moments(a_UGKI, d_UGKO, wanted.mean, wanted.signs)
        if not wanted.spread:
            made = {name: x for name, x in made.items() if not name.startswith("abs")}
        self._merge(len(a_UGKI), **{name: x.flatten(0, 1) for name, x in made.items()})


def probe(device: torch.device) -> None:
    """Run the kernel once."""
    moments(*torch.ones(2, 2, 1, 4, 4, device=device), True, True)


def moments(a_UGKI: torch.Tensor, d_UGKO: torch.Tensor, mean: bool, signs: bool) -> dict[str, torch.Tensor]:
    """Statistics over units of ``d_UGKO^T a_UGKI``: ``abs_mean``, ``abs_m2``, and ``mean`` and ``signs`` if wanted.

    Returns
    -------
    float32 tensors (G, O, I): mean of |g|, sum of (|g| - its mean)^2, mean of g, sum of the signs
    """
    units, groups, positions, width = a_UGKI.shape
    height = d_UGKO.shape[-1]
    a_high, a_low, a_power_UG11 = halves(a_UGKI.contiguous())
    d_high, d_low, d_power_UG11 = halves(d_UGKO.contiguous())
    names = ["abs_mean", "abs_m2", *["mean"] * mean, *["signs"] * signs]
    made = {name: a_UGKI.new_empty(groups, height, width) for name in names}
    nothing = made["abs_mean"]  # stands for what is not wanted; the kernel does not touch it
    rows, columns, step, warps = ALL if mean or signs else SPREAD
    with torch.cuda.device_of(a_UGKI):  # Triton starts a kernel on the current device
        _moments[(triton.cdiv(height, rows), triton.cdiv(width, columns), groups)](
            a_high,
            a_low,
            d_high,
            d_low,
            a_power_UG11,
            d_power_UG11,
            made["abs_mean"],
            made["abs_m2"],
            made.get("mean", nothing),
            made.get("signs", nothing),
            units,
            positions,
            width,
            height,
            MEAN=mean,
            SIGNS=signs,
            ROWS=rows,
            COLUMNS=columns,
            STEP=step,
            num_warps=warps,
        )
    return made


@triton.jit
def _moments(
    a_high_ptr,
    a_low_ptr,
    d_high_ptr,
    d_low_ptr,
    a_unit_ptr,
    d_unit_ptr,
    abs_mean_ptr,
    abs_m2_ptr,
    mean_ptr,
    signs_ptr,
    units,
    positions,
    width,
    height,
    MEAN: tl.constexpr,
    SIGNS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
):
    o = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    i = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    group, groups = tl.program_id(2), tl.num_programs(2)
    steps = tl.arange(0, STEP)
    abs_mean = tl.zeros((ROWS, COLUMNS), tl.float32)
    abs_m2 = tl.zeros((ROWS, COLUMNS), tl.float32)
    if MEAN:
        total = tl.zeros((ROWS, COLUMNS), tl.float32)
    if SIGNS:
        signs = tl.zeros((ROWS, COLUMNS), tl.float32)
    for unit in range(units):
        g = tl.zeros((ROWS, COLUMNS), tl.float32)
        for first in range(0, positions, STEP):
            k = first + steps
            row = (unit * groups + group) * positions + k
            d_at, a_at = row[:, None] * height + o[None, :], row[:, None] * width + i[None, :]
            d_there = (k < positions)[:, None] & (o < height)[None, :]
            a_there = (k < positions)[:, None] & (i < width)[None, :]
            d_high = tl.trans(tl.load(d_high_ptr + d_at, mask=d_there, other=0.0))
            a_high = tl.load(a_high_ptr + a_at, mask=a_there, other=0.0)
            g = tl.dot(d_high, tl.load(a_low_ptr + a_at, mask=a_there, other=0.0), g)
            g = tl.dot(tl.trans(tl.load(d_low_ptr + d_at, mask=d_there, other=0.0)), a_high, g)
            g = tl.dot(d_high, a_high, g)
        place = unit * groups + group
        g *= tl.load(a_unit_ptr + place) * tl.load(d_unit_ptr + place)
        if MEAN:
            total += g
        if SIGNS:
            signs += tl.where(g > 0, 1.0, tl.where(g < 0, -1.0, 0.0))
        size = tl.abs(g)
        delta = size - abs_mean
        abs_mean += delta / (unit + 1)
        abs_m2 += delta * (size - abs_mean)
    at = (group * height + o[:, None]) * width + i[None, :]
    there = (o[:, None] < height) & (i[None, :] < width)
    tl.store(abs_mean_ptr + at, abs_mean, mask=there)
    tl.store(abs_m2_ptr + at, abs_m2, mask=there)
    if MEAN:
        tl.store(mean_ptr + at, total / units, mask=there)
    if SIGNS:
        tl.store(signs_ptr + at, signs, mask=there)
