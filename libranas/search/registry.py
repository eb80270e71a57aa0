"""The search strategies, by name."""

from collections.abc import Callable

from libranas.search.evolution import AgeingEvolution, Evolution
from libranas.search.nsga2 import NSGA2, costs_of
from libranas.search.random import RandomSearch
from libranas.spaces import Budget, Space

#: Strategies that can find the winner; the last one shrinks a supernet and is no searcher
#: (:mod:`libranas.search.pruning`).
METHODS = ("evolution", "ageing", "nsga2", "random", "params", "pruning")


def strategy(name: str, space: Space, budget: Budget, seed: int, settings: dict, fitness: Callable):
    """A searcher and what it maximises, for one of the strategies of the workflow.

    All maximise `fitness`, but for ``params``, which is evolution on the number of parameters.

    Parameters
    ----------
    settings : dict with ``population``, ``parents`` and, for ``nsga2``, ``objectives``
    """
    if name == "random":
        return RandomSearch(space, budget, seed), fitness
    common = space, budget, seed, settings["population"], settings["parents"]
    if name == "params":
        return Evolution(*common, name), lambda arch: (float(space.params(arch)), {})
    if name == "nsga2":
        return NSGA2(*common, costs=tuple(costs_of(settings["objectives"], space, budget).values())), fitness
    if kind := {"evolution": Evolution, "ageing": AgeingEvolution}.get(name):
        return kind(*common), fitness
    raise ValueError(f"unknown strategy {name!r}")
