"""The registry of search strategies.

To add one: write a :class:`libranas.search.base.Strategy` record in a new file of ``libranas/search/strategies``.
"""

from libranas.core.registry import Registry
from libranas.search.base import Strategy

STRATEGIES = Registry(Strategy, "libranas.search.strategies", "strategy", "libranas.strategies")
