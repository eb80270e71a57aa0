"""The registry of combiners.

To add one: write a :class:`libranas.predictors.base.Combiner` record in a new file of ``libranas/predictors``.
"""

from libranas.core.registry import Registry
from libranas.predictors.base import Combiner

#: Those without labels first, then by name.
COMBINERS = Registry(
    Combiner, "libranas.predictors", "combiner", "libranas.combiners", order=lambda c: (c.needs_labels, c.name)
)
