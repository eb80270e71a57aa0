"""Random search."""

from dataclasses import dataclass

from libranas.search.base import Searcher


@dataclass(frozen=True)
class RandomSearch(Searcher):
    """Uniform members of the space within the budget, none twice."""

    name: str = "random"
