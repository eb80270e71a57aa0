"""The search for the largest network of the budget."""

from functools import partial

from libranas.search.base import Strategy
from libranas.search.strategies.evolution import Evolution

PARAMS = Strategy(
    "params",
    "The search for size",
    partial(Evolution, name="params"),
    ("population", "parents"),
    own_fitness=lambda space, arch: space.params(arch),
    note="The search for size is evolution on the number of parameters.",
    colour="#009e73",
)
