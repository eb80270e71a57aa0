"""Statistics of the gradient of one weight over units, without ever holding units x parameters.

The gradients of all units are made for one tile of the weight at a time, which stays in the cache of a core.
Legend: U units, G groups, K positions of a unit, I in, O out; tiles are r rows by c columns of O x I.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from libranas.zero_cost.captures import Gradient

#: Elements of a tile of all units' gradients: 4 MiB of float32, near the second-level caches of a few cores.
TILE, GPU_TILE = 2**20, 2**27  # a GPU prefers few large products
#: Columns of a tile, and units whose gradients are made at a time: with fewer units the tile has more rows, which a
#: processor multiplies faster.
COLUMNS, UNITS = 256, 32


@dataclass(frozen=True)
class Wanted:
    """Statistics that the proxies of a call need."""

    mean: bool = False
    spread: bool = False
    signs: bool = False
    accumulated: bool = False

    @property
    def any(self) -> bool:
        return self.mean or self.of_units

    @property
    def of_units(self) -> bool:
        """Return whether single units are needed, not the mean alone."""
        return self.spread or self.signs or self.accumulated


class Scratch:
    """Buffers that are used again from layer to layer; fresh memory costs more than what is done in it."""

    def __init__(self):
        self._buffers: dict[str, torch.Tensor] = {}

    def take(self, name: str, like: torch.Tensor, *shape: int) -> torch.Tensor:
        size, buffer = math.prod(shape), self._buffers.get(name)
        if buffer is None or buffer.numel() < size or buffer.dtype != like.dtype:
            buffer = self._buffers[name] = torch.empty(size, dtype=like.dtype, device=like.device)
        return buffer[:size].view(shape)


def tiles(
    a_UGKI: torch.Tensor, d_UGKO: torch.Tensor, scratch: Scratch
) -> Iterator[tuple[tuple[slice, slice, slice], torch.Tensor]]:
    """Yield the gradients ``d_UGKO^T a_UGKI`` a tile at a time: where it lies in (G, O, I), and (U, entries).

    The tile is overwritten by the next one and may be changed in place.
    """
    units, groups, _, width = a_UGKI.shape
    height = d_UGKO.shape[-1]
    a, d_T = a_UGKI.flatten(0, 1), d_UGKO.flatten(0, 1).transpose(1, 2)
    gpu = a.device.type == "cuda"
    cols = width if gpu else min(width, COLUMNS)
    rows = min(height, max(1, (GPU_TILE if gpu else TILE) // (units * groups * cols)))
    for o in range(0, height, rows):
        for i in range(0, width, cols):
            left, right = d_T[:, o : o + rows], a[:, :, i : i + cols]
            r, c = left.shape[1], right.shape[2]
            tile = scratch.take("tile", a, units * groups, r, c)
            torch.bmm(left, right, out=tile)
            yield (slice(None), slice(o, o + r), slice(i, i + c)), tile.view(units, -1)


class Running:
    """Mean and sum of squared deviations over units, merged batch by batch (Chan et al., 1979)."""

    def __init__(self, second: bool = True):
        self.second = second
        self.units, self.mean, self.m2 = 0, None, None

    def merge(self, units: int, mean: torch.Tensor, m2: torch.Tensor | None) -> None:
        """Add `units` units with that mean and sum of squared deviations from it (None: zero)."""
        if self.units == 0:
            self.units, self.mean = units, mean
            self.m2 = (torch.zeros_like(mean) if m2 is None else m2) if self.second else None
            return
        total = self.units + units
        delta = mean - self.mean
        self.mean = torch.add(self.mean, delta, alpha=units / total)
        if self.second:
            self.m2 = torch.add(self.m2, self._product(delta), alpha=self.units * units / total)
            if m2 is not None:
                self.m2 += m2
        self.units = total

    @staticmethod
    def _product(delta: torch.Tensor) -> torch.Tensor:
        return delta.square_()  # in place: it is not needed any more

    def std(self) -> torch.Tensor:
        return (self.m2 / self.units).sqrt_()


class Scatter(Running):
    """Mean of vectors and their scatter matrix, the sum of outer products of deviations."""

    @staticmethod
    def _product(delta_D: torch.Tensor) -> torch.Tensor:
        return torch.outer(delta_D, delta_D)


class Moments:
    """Statistics of one weight's gradient over units; the layers of a run share `scratch`.

    Only \\|g\\| is centred: ``sum (g - mean)^2 = sum (|g| - abs_mean)^2 + U (abs_mean^2 - mean^2)``. Nothing cancels in
    that: the last bracket is zero where all units have the same sign, else of the order of the variance itself.
    """

    def __init__(self, wanted: Wanted, scratch: Scratch | None = None):
        self.wanted, self.scratch = wanted, scratch or Scratch()
        self.units = 0
        self.signed = Running(second=False)
        self.absolute = Running()
        self.sums = Running()  # of the running sums over units, an error of released code (need "accumulated")
        self.sign_sum = None

    def add_products(self, a_UGKI: torch.Tensor, d_UGKO: torch.Tensor) -> None:
        """Add the weight gradients ``d_UGKO^T a_UGKI`` of all units."""
        if self.wanted.of_units:
            most = len(a_UGKI) if a_UGKI.is_cuda else UNITS
            for a, d in zip(a_UGKI.split(most), d_UGKO.split(most), strict=True):
                self._add_units(a, d)
            return
        a_GNI, d_GNO = (x.transpose(0, 1).flatten(1, 2) for x in (a_UGKI, d_UGKO))
        mean_GOI = torch.bmm(d_GNO.transpose(1, 2), a_GNI)  # an ordinary weight gradient
        self._merge(len(a_UGKI), mean=mean_GOI.flatten(0, 1) / len(a_UGKI))

    def _add_units(self, a_UGKI: torch.Tensor, d_UGKO: torch.Tensor) -> None:
        units, groups, _, width = a_UGKI.shape
        height, wanted = d_UGKO.shape[-1], self.wanted
        names = ["mean"] if wanted.mean or wanted.accumulated else []
        names += ["abs_mean", "abs_m2"] if wanted.spread else []
        names += ["signs"] if wanted.signs else []
        names += ["sums", "sums_m2"] if wanted.accumulated else []
        made = {name: a_UGKI.new_empty(groups, height, width) for name in names}
        total = torch.ones(1, units, dtype=a_UGKI.dtype, device=a_UGKI.device)
        average = total / units
        for here, g in tiles(a_UGKI, d_UGKO, self.scratch):
            shape = groups, here[1].stop - here[1].start, here[2].stop - here[2].start
            if "mean" in made:
                made["mean"][here] = (average @ g).view(shape)
            if wanted.signs:
                sign = torch.sign(g, out=self.scratch.take("sign", g, *g.shape))
                made["signs"][here] = (total @ sign).view(shape)
            if wanted.accumulated:
                running = g.cumsum(0)
                if self.units:  # go on from the sum of the units that were added before
                    running += self.units * self.signed.mean.view(groups, height, width)[here].reshape(1, -1)
                middle = average @ running
                made["sums"][here] = middle.view(shape)
                made["sums_m2"][here] = (total @ running.sub_(middle).square_()).view(shape)
            if wanted.spread:
                middle = average @ g.abs_()
                made["abs_mean"][here] = middle.view(shape)
                made["abs_m2"][here] = (total @ g.sub_(middle).square_()).view(shape)
        self._merge(units, **{name: x.view(groups * height, width) for name, x in made.items()})

    def add_unit(self, g_OI: torch.Tensor) -> None:
        """Add the gradient of one more unit."""
        w = self.wanted
        sums_OI = g_OI + self.units * self.signed.mean if w.accumulated and self.units else g_OI
        self._merge(
            1,
            mean=g_OI if w.mean or w.accumulated or not w.of_units else None,
            abs_mean=g_OI.abs() if w.spread else None,
            signs=g_OI.sign() if w.signs else None,
            sums=sums_OI if w.accumulated else None,
        )

    def _merge(self, units, mean=None, abs_mean=None, abs_m2=None, signs=None, sums=None, sums_m2=None) -> None:
        if mean is not None:
            self.signed.merge(units, mean, None)
        if abs_mean is not None:
            self.absolute.merge(units, abs_mean, abs_m2)
        if sums is not None:
            self.sums.merge(units, sums, sums_m2)
        if signs is not None:
            self.sign_sum = signs if self.sign_sum is None else self.sign_sum + signs
        self.units += units

    def gradient(self, name: str, weight_OI: torch.Tensor, scale: float = 1.0, sums: bool = False) -> Gradient:
        """Return the statistics for gradients `scale` times those that were added.

        With `sums`, mean and standard deviation are those of the running sums (need ``accumulated``).
        """
        gradient = Gradient(name, weight_OI, self.units)
        if sums:
            gradient.mean_OI, gradient.std_OI = self.sums.mean * scale, self.sums.std() * scale
            return gradient
        if self.signed.mean is not None:
            gradient.mean_OI = self.signed.mean * scale
        gradient.sign_sum_OI = self.sign_sum
        if self.absolute.mean is not None:
            gradient.abs_mean_OI = self.absolute.mean * scale
            variance = self.absolute.m2 / self.units
            gradient.abs_std_OI = self._deviation(variance) * scale
            if self.signed.mean is not None:
                between = self.absolute.mean.square() - self.signed.mean.square()
                gradient.std_OI = self._deviation(variance.add_(between.clamp_(min=0))) * scale
        return gradient

    def _deviation(self, variance_OI: torch.Tensor) -> torch.Tensor:
        """Return the square root; exactly zero where it is no more than the rounding error of equal values."""
        std_OI = variance_OI.sqrt()
        rounding = 4 * torch.finfo(std_OI.dtype).eps
        return std_OI.masked_fill_(std_OI <= rounding * self.absolute.mean, 0.0)
