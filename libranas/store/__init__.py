"""The HDF5 file of scores: one a shard, and all of them merged. Specification: ``docs/store-format.md``."""

from libranas.store.file import Blocks, column, read, write
from libranas.store.frames import check_failures, costs, finite_mean, frame, nonfinite
from libranas.store.merging import merge
from libranas.store.nodes import content_sha256, equal_values
from libranas.store.scores import ComponentArray, PassTable, ProxyTable, Scores, collect, many

__all__ = [
    "Blocks",
    "ComponentArray",
    "PassTable",
    "ProxyTable",
    "Scores",
    "check_failures",
    "collect",
    "column",
    "content_sha256",
    "costs",
    "equal_values",
    "finite_mean",
    "frame",
    "many",
    "merge",
    "nonfinite",
    "read",
    "write",
]
