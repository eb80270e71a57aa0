"""Name the winner of the searches and its controls."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import pandas as pd

from libranas.core import pareto
from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.core.random import stream_seed
from libranas.search.base import points
from libranas.spaces import Budget, Sampler, Space
from libranas.spaces.base import network

#: Greatest difference in parameters between the winner and the random control, where the space has such a network.
EQUAL_SIZE = 0.02
#: Networks that are measured for one role before none is taken to keep to the limits of latency, after how many the
#: table is corrected by them, and how many are looked at in it.
TRIES, SOME, LOOKED_AT = 20, 5, 2000
#: How the winner is taken from what was evaluated.
WINNERS = ("fittest", "balanced")


def select(
    histories: Mapping[str, pd.DataFrame],
    space: Space,
    budget: Budget,
    seed: int,
    winner: str = "fittest",
    objectives: Sequence[str] = (),
    measured: Callable[[Arch], dict] | None = None,
    reference: Arch | None = None,
    labelled: Sequence[Arch] = (),
) -> dict[str, dict]:
    """The winner and its controls, JSON-ready.

    Roles: ``winner``; ``random``, a random member of equal size (:data:`EQUAL_SIZE`), or the nearest in size that is
    found, with ``params_difference``, what it has more or less as a share of the winner's parameters; ``params_max``,
    the largest network that the params-only search found; ``random_best``, the first of `labelled`; ``reference``, a
    member that the user names, if any, of any size and latency. A control can be the winner itself; then ``same_as``
    says so.

    Parameters
    ----------
    histories : the method that finds the winner first; ``params`` among them
    winner : ``fittest``, or ``balanced``: of the front against `objectives` the best compromise
        (:func:`libranas.core.pareto.balanced`)
    labelled : random networks that were trained for the stage benchmark, the best first
    measured : the latency of a network as :func:`libranas.latency.table.record` gives it; see :class:`_Roles`
    """
    roles = _Roles(space, budget, measured)
    method = next(iter(histories))
    best, entry = roles.taken(_best_first(histories[method], method, winner, objectives), "winner")
    largest, largest_entry = roles.taken(_best_first(histories["params"], "params"), "params_max")
    control, control_entry = roles.taken(equal_size(space, budget, best, EQUAL_SIZE, seed, [largest]), "random")
    difference = space.params(control) / space.params(best) - 1
    if abs(difference) > EQUAL_SIZE:
        control_entry["params_difference"] = difference
    controls = {"random": control_entry, "params_max": largest_entry}
    if labelled:
        controls["random_best"] = roles.taken(iter(labelled), "random_best")[1]
    if reference is not None:
        controls["reference"] = roles.entry(reference)
    for other in controls.values():
        if other["id"] == best.id:
            other["same_as"] = "winner"
    return {"winner": entry, **controls}


def _best_first(
    table: pd.DataFrame, strategy: str, rule: str = "fittest", objectives: Sequence[str] = ()
) -> Iterator[Arch]:
    """Candidates of a search, by fitness; or (`balanced`) those of its front, the best compromise first."""
    table = table[np.isfinite(table["fitness"])]
    if table.empty:
        raise LibranasError(
            "No candidate of the search has a finite fitness.",
            f"Look at the scores in search/{strategy}.csv and leave the failing proxies out of score.proxies.",
        )
    if rule == "balanced":
        table = table[table["front"]]
        order = pareto.balanced(points(table["fitness"], *(table[name] for name in objectives)))
    else:
        order = np.argsort(-table["fitness"].to_numpy(), kind="stable")
    return (Arch.from_json(table["architecture"].iloc[i]) for i in order)


@dataclass(frozen=True)
class _Roles:
    """Gives a role to the first candidate that keeps to the budget's limits of latency when it is measured.

    The candidates before it are kept under ``rejected``. From :data:`SOME` of them on the machine is taken to be slower
    or faster than when the table was measured, by their median factor, and who would not keep to the limits by that is
    not measured.
    """

    space: Space
    budget: Budget
    measured: Callable[[Arch], dict] | None

    def entry(self, arch: Arch) -> dict:
        counts = {"params": self.space.params(arch), "macs": self.space.macs(arch)}
        entry = {"id": arch.id, "architecture": arch.json, **counts}
        return entry | ({"latency": self.measured(arch)} if self.measured else {})

    def taken(self, candidates: Iterator[Arch], role: str) -> tuple[Arch, dict]:
        low, high = self.budget.latency if self.measured and self.budget.latency else (-np.inf, np.inf)
        rejected, factors = [], []
        for arch in islice(candidates, LOOKED_AT):
            if len(rejected) >= SOME and not low <= np.median(factors) * self.budget.clock(arch) <= high:
                continue
            entry = self.entry(arch)
            if not self.measured or low <= entry["latency"]["median"] <= high:
                return arch, {**entry, **({"rejected": rejected} if rejected else {})}
            rejected.append(entry)
            factors.append(entry["latency"]["median"] / self.budget.clock(arch))
            if len(rejected) == TRIES:
                break
        times = [e["latency"]["median"] for e in rejected]
        raise LibranasError(
            f"No candidate for {role} keeps to budget.latency {list(self.budget.latency)} when it is measured; "
            f"{len(times)} were, {min(times):.3f} to {max(times):.3f} ms, {np.median(factors):.3f} times what the "
            "table says.",
            "Let nothing else run while latencies are measured, delete latency/table.json of the run to measure the "
            "table again, or widen the budget.",
        )


def equal_size(
    space: Space, budget: Budget, like: Arch, tolerance: float, seed: int, exclude: Iterable[Arch] = ()
) -> Iterator[Arch]:
    """Random members of the budget whose parameters lie within `tolerance` (0.02: 2 %) of those of `like`; not `like`.

    Drawn by rejection; a size that is too rare for that is reached by mutations of random members that bring it no
    further away, for up to :data:`TRIES` networks. Else the member of the budget that came nearest in size.
    """
    size = space.params(like)
    low, high = int(np.ceil(size * (1 - tolerance))), int(size * (1 + tolerance))
    if budget.params:
        low, high = max(low, budget.params[0]), min(high, budget.params[1])
    rng = np.random.default_rng(stream_seed(seed, "search", "equal_size", like.id))
    window = replace(budget, params=(low, high))
    excluded = {network(space, arch) for arch in (like, *exclude)}
    asked = len(excluded)
    try:
        yield from Sampler(space, window, rng, exclude=excluded)
    except LibranasError:
        for _ in range(TRIES):
            if not (arch := _walk(space, budget, window, size, rng, excluded)):
                break
            excluded.add(network(space, arch))
            yield arch
        if len(excluded) == asked:
            raise


#: Walks of 300 mutations each that look for a network of a rare size.
WALKS = 100


def _walk(
    space: Space, budget: Budget, window: Budget, size: int, rng: np.random.Generator, exclude: set[str]
) -> Arch | None:
    """Return the first member within the window that walks of mutations meet; else the one nearest in size."""
    limits = window.limits(space)
    nearest, gap = None, np.inf

    def away(arch: Arch) -> float:
        """Return how far outside of the windows a network lies, relative to them."""
        counts = [(limit.window, limit.count(arch)) for limit in limits]
        return sum(max(w[0] / count - 1, count / w[1] - 1, 0) for w, count in counts)

    for _ in range(WALKS):
        arch = space.sample(rng)
        for _ in range(300):
            child = space.mutate(arch, rng)
            if away(child) <= away(arch):
                arch = child
            new = network(space, child) not in exclude
            if new and window.admits(space, child):
                return child
            if new and abs(space.params(child) - size) < gap and budget.admits(space, child):
                nearest, gap = child, abs(space.params(child) - size)
    return nearest
