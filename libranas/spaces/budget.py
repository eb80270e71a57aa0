"""The budget of a search, and sampling within it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.spaces.base import Space, network


class Clock(Protocol):
    """Looks up the milliseconds of a network (:class:`libranas.latency.table.LatencyTable`)."""

    def __call__(self, arch: Arch) -> float: ...

    def extremes(self, space: Space) -> Iterable[Arch]:
        """Return members among which are the fastest and the slowest."""


@dataclass(frozen=True)
class Limit:
    """An inclusive window on one of the numbers that a network costs."""

    name: str
    window: tuple[float, float]
    count: Callable[[Arch], float]
    unit: str


@dataclass(frozen=True)
class Budget:
    """Inclusive windows on parameters, MACs and latency in milliseconds, in any combination; None means unbounded.

    Attributes
    ----------
    clock : looks up the latency of a network; needed for a window on it
    """

    params: tuple[int, int] | None = None
    macs: tuple[int, int] | None = None
    latency: tuple[float, float] | None = None
    clock: Clock | None = None

    @classmethod
    def from_settings(cls, settings: dict, clock: Clock | None = None) -> "Budget":
        return cls(*(tuple(settings[k]) if settings.get(k) else None for k in ("params", "macs", "latency")), clock)

    def limits(self, space: Space) -> list[Limit]:
        """Return the windows that are set."""
        windows = (
            Limit("params", self.params, space.params, "params"),
            Limit("macs", self.macs, space.macs, "macs"),
            Limit("latency", self.latency, self.clock, "milliseconds"),
        )
        return [limit for limit in windows if limit.window is not None]

    def admits(self, space: Space, arch: Arch) -> bool:
        return all(limit.window[0] <= limit.count(arch) <= limit.window[1] for limit in self.limits(space))

    def check(self, space: Space) -> None:
        """Raise a LibranasError naming the feasible range if no member can lie in a window."""
        for limit in self.limits(space):
            least, most = limit.window
            extremes = self.clock.extremes(space) if limit.name == "latency" else space.extremes()
            counts = [limit.count(arch) for arch in extremes]
            low, high = min(counts), max(counts)
            if limit.name == "latency":
                low, high = round(low, 3), round(high, 3)
            if least > most or most < low or least > high:
                raise LibranasError(
                    f"budget.{limit.name} [{least}, {most}] is infeasible: this space reaches "
                    f"{low} to {high} {limit.unit}.",
                    f"Choose a window that overlaps [{low}, {high}], or change the choices under `space`.",
                )


class Sampler:
    """Draw architectures that the budget admits, no network twice.

    Draws are uniform over the choices, and rejected outside of the budget. The counts are closed forms, so even a
    window that admits one draw in a thousand costs milliseconds. The number of draws is bounded, so a window between
    two reachable sizes, or one with too few members, is an error and never an endless loop. `exclude` holds the names
    (:func:`network`) of networks that are not drawn; new names are added to it.
    """

    #: Draws without a new member after which the window counts as exhausted.
    PATIENCE = 20_000

    def __init__(self, space: Space, budget: Budget, rng: np.random.Generator, exclude: set[str] | None = None):
        budget.check(space)
        self.space, self.budget, self.rng = space, budget, rng
        self.seen = set() if exclude is None else exclude
        self.found = 0

    def __iter__(self):
        return self

    def __next__(self) -> Arch:
        outside = None
        for _ in range(self.PATIENCE):
            arch = self.space.sample(self.rng)
            if not self.budget.admits(self.space, arch):
                outside = arch
                continue
            name = network(self.space, arch)
            if name not in self.seen:
                self.seen.add(name)
                self.found += 1
                return arch
        limits = self.budget.limits(self.space)
        windows = " and ".join(f"{limit.name} {list(limit.window)}" for limit in limits) or "the space"
        last = ", ".join(f"{round(limit.count(outside), 3)} {limit.unit}" for limit in limits) if outside else ""
        raise LibranasError(
            f"Found only {self.found} different architectures within {windows}; {self.PATIENCE} further draws gave no "
            f"new one{f' (the last outside had {last})' if last else ''}.",
            "Widen the budget, ask for fewer architectures (`sample.count`), or offer more choices under `space`.",
        )

    def take(self, count: int) -> list[Arch]:
        return [next(self) for _ in range(count)]
