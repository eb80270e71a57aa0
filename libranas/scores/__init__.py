"""The HDF5 file of scores: one a shard, and all of them merged. Specification: ``docs/store-format.md``."""

from libranas.scores.file import Blocks, column, read, write
from libranas.scores.frames import check_failures, costs, frame, nonfinite
from libranas.scores.merge import merge
from libranas.scores.nodes import content_sha256
from libranas.scores.table import ComponentArray, PassTable, ProxyTable, Scores, collect, many

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
    "frame",
    "many",
    "merge",
    "nonfinite",
    "read",
    "write",
]
