"""Random search."""

from dataclasses import dataclass

from libranas.search.base import Searcher, Strategy


@dataclass(frozen=True)
class RandomSearch(Searcher):
    """Uniform members of the space within the budget, none twice."""

    name: str = "random"


RANDOM = Strategy("random", "Random search", RandomSearch, colour="#e69f00")
