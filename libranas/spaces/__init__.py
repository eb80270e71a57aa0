"""Search spaces: what may be chosen. See :class:`libranas.spaces.base.Space` and :mod:`libranas.spaces.registry`."""

from libranas.spaces.autoformer import AutoFormerSpace
from libranas.spaces.base import Space
from libranas.spaces.budget import Budget, Sampler
from libranas.spaces.cells.darts import DARTSSpace
from libranas.spaces.cells.nasbench101 import NASBench101Space
from libranas.spaces.cells.nasbench201 import NASBench201Space
from libranas.spaces.cells.transnas101 import TransNASMacroSpace, TransNASMicroSpace
from libranas.spaces.pit import PiTSpace
from libranas.spaces.registry import FAMILIES, SpaceFamily, make_space

__all__ = [
    "FAMILIES",
    "AutoFormerSpace",
    "Budget",
    "DARTSSpace",
    "NASBench101Space",
    "NASBench201Space",
    "PiTSpace",
    "Sampler",
    "Space",
    "SpaceFamily",
    "TransNASMacroSpace",
    "TransNASMicroSpace",
    "make_space",
]
