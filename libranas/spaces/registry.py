"""The registry of search spaces.

To add one: write a :class:`libranas.spaces.base.Space` and its :class:`SpaceFamily` record in a new file of
``libranas/spaces``. The configuration, the command line and the stages find it by this registry.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field
from pkgutil import resolve_name

from libranas.core.arch import frozen
from libranas.core.errors import LibranasError
from libranas.core.registry import Registry
from libranas.core.typed import Key, keys_of, read
from libranas.spaces.base import Space

#: Fields of a space that come from the data, not from the config section ``space``.
TASK = ("image_size", "channels", "classes")


@dataclass(frozen=True)
class SpaceFamily:
    """A search space and what other parts of the program need to know of it.

    Attributes
    ----------
    space : the class of the space
    network : what builds its networks: a function ``(space, arch) -> nn.Module``; or a dotted name, imported when a
        network is built, of such a function (``module:function``) or of a module like :mod:`libranas.networks.pit`
    make : called with ``image_size``, ``channels``, ``classes`` and the settings; returns the space. Default: `space`
    settings : keys that only `make` takes, besides the fields of `space`
    image_size : pixels a side of images where nothing says a number
    weight_sharing : its networks can share their weights in a supernet (:mod:`libranas.labels.supernet`)
    latency_parts : dotted name ``module:class`` of a class as in :mod:`libranas.latency.parts`; None: latencies of its
        networks cannot be looked up
    """

    space: type[Space]
    network: str | Callable
    make: Callable[..., Space] | None = None
    settings: Mapping[str, Key] = field(default_factory=dict)
    image_size: int = 32
    weight_sharing: bool = False
    latency_parts: str | None = None

    @property
    def name(self) -> str:
        """The name of the family in the configuration and in architectures."""
        return self.space.family

    @property
    def keys(self) -> dict[str, Key]:
        """The keys of the config section ``space`` that this family has. All may be null, for the default."""
        return {name: key for name, key in self.all_keys.items() if "description" in key.limits}

    @property
    def all_keys(self) -> dict[str, Key]:
        """All settings that :meth:`build` takes. Numbers are positive and such as a network can have."""
        general = {"above": 0, "below": 10**9, "length": (1, math.inf)}
        return {
            name: Key(key.hint | None, None if key.default is MISSING else key.default, general | key.limits)
            for name, key in {**self.settings, **keys_of(self.space)}.items()
            if name not in TASK
        }

    def build(self, settings: Mapping, image_size, channels: int, classes: int) -> Space:
        """Make the space of a config section ``space`` for a task; a setting that is None has its default."""
        given = {key: value for key, value in settings.items() if key != "family" and value is not None}
        given = {key: frozen(value) for key, value in read(self.all_keys, given, "space.", partial=True).items()}
        return (self.make or self.space)(image_size=image_size, channels=channels, classes=classes, **given)

    def parts(self):
        """Return the class that says what the networks consist of, for tables of latencies.

        Raises
        ------
        LibranasError
            If the family has none.
        """
        if self.latency_parts is None:
            having = ", ".join(family.name for family in FAMILIES.values() if family.latency_parts)
            raise LibranasError(
                f"Latencies of networks of the space {self.name} cannot be looked up.", f"These can: {having}."
            )
        return resolve_name(self.latency_parts)


FAMILIES = Registry(SpaceFamily, "libranas.spaces", "space", "libranas.spaces")


def make_space(settings: Mapping, image_size, channels: int, classes: int) -> Space:
    """Make the space of a config section ``space`` for a task; ``settings["family"]`` names its kind."""
    try:
        family = FAMILIES[settings["family"]]
    except KeyError:
        raise LibranasError(
            f"space.family is {settings.get('family')!r}.", f"Known families: {', '.join(FAMILIES)}."
        ) from None
    return family.build(settings, image_size, channels, classes)
