"""Search spaces: what may be chosen. See :class:`libranas.spaces.base.Space` for the protocol."""

from libranas.core.errors import LibranasError
from libranas.spaces.autoformer import AutoFormerSpace
from libranas.spaces.base import Space
from libranas.spaces.budget import Budget, Sampler
from libranas.spaces.cells.darts import DARTSSpace
from libranas.spaces.cells.nasbench101 import NASBench101Space
from libranas.spaces.cells.nasbench201 import NASBench201Space
from libranas.spaces.cells.transnas101 import TransNAS101Space
from libranas.spaces.pit import PiTSpace

_FAMILIES = {
    space.family: space
    for space in (AutoFormerSpace, DARTSSpace, NASBench101Space, NASBench201Space, PiTSpace, TransNAS101Space)
}

__all__ = [
    "AutoFormerSpace",
    "Budget",
    "DARTSSpace",
    "NASBench101Space",
    "NASBench201Space",
    "PiTSpace",
    "Sampler",
    "Space",
    "TransNAS101Space",
    "make_space",
]


def make_space(settings: dict, image_size: int, channels: int, classes: int) -> Space:
    """The space of a config section ``space`` for a task; ``settings["family"]`` names the class."""
    try:
        family = _FAMILIES[settings["family"]]
    except KeyError:
        raise LibranasError(
            f"space.family is {settings.get('family')!r}.", f"Known families: {', '.join(_FAMILIES)}."
        ) from None
    return family.from_settings(settings, image_size, channels, classes)
