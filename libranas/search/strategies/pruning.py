"""The record of pruning; :mod:`libranas.search.pruning` has the search itself, which needs torch."""

from libranas.search.base import Strategy

PRUNING = Strategy(
    "pruning",
    "Pruning",
    note="The evaluations of pruning are supernets; only the network that is left has this fitness.",
)
