"""The registry of search spaces.

To add one: write a :class:`libranas.spaces.base.Space` and its :class:`SpaceFamily` record in a new file of
``libranas/spaces``. The configuration, the command line and the stages find it by this registry.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pkgutil import resolve_name
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from libranas.core.errors import LibranasError
from libranas.core.registry import Registry
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
    settings : JSON schema of the keys that only `make` takes; see :attr:`schema` for the others
    image_size : pixels a side of images where nothing says a number
    file_formats : :mod:`libranas.spaces.file_formats` can write its networks
    weight_sharing : its networks can share their weights in a supernet (:mod:`libranas.labels.supernet`)
    latency_parts : dotted name ``module:class`` of a class as in :mod:`libranas.latency.parts`; None: latencies of its
        networks cannot be looked up
    """

    space: type[Space]
    network: str | Callable
    make: Callable[..., Space] | None = None
    settings: Mapping[str, dict] = field(default_factory=dict)
    image_size: int = 32
    file_formats: bool = False
    weight_sharing: bool = False
    latency_parts: str | None = None

    @property
    def name(self) -> str:
        """The name of the family in the configuration and in architectures."""
        return self.space.family

    @property
    def schema(self) -> dict[str, dict]:
        """JSON schema of each key of the config section ``space`` that this family has."""
        types = get_type_hints(self.space)
        schema = dict(self.settings)
        for f in fields(self.space):
            if "schema" in f.metadata:
                own = f.metadata["schema"]
                kind = {} if {"type", "enum"} & set(own) else _schema_of(types[f.name])
                schema[f.name] = kind | own | {"description": f.metadata["description"]}
        return schema

    def build(self, settings: Mapping, image_size, channels: int, classes: int) -> Space:
        """Make the space of a config section ``space`` for a task; a setting that is None has its default."""
        given = {key: value for key, value in settings.items() if key != "family" and value is not None}
        known = [f.name for f in fields(self.space) if f.name not in TASK] + list(self.settings)
        if unknown := [key for key in given if key not in known]:
            raise LibranasError(f"space {self.name}: there is no key {unknown[0]}.", f"Known keys: {', '.join(known)}.")
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


def space_schema() -> dict[str, dict]:
    """Return the JSON schema of each key of the config section ``space``. ``of`` names the families that have a key."""
    merged: dict[str, dict] = {"family": {"enum": list(FAMILIES), "description": "Kind of networks."}}
    for family in FAMILIES.values():
        for key, rule in family.schema.items():
            known = merged.setdefault(key, rule | {"of": []})
            merged[key] = _either(known, rule) | {"of": [*known["of"], family.name]}
    return merged


def _either(known: dict, rule: dict) -> dict:
    """Join the schemas that two families have for one key."""
    notes = ("description", "of")
    plain, other = ({k: v for k, v in r.items() if k not in notes} for r in (known, rule))
    description = known["description"]
    if rule["description"] not in description:
        description += f" {rule['description']}"
    if plain != other:
        plain = {"anyOf": [*plain.get("anyOf", [plain]), *other.get("anyOf", [other])]}
    return plain | {"description": description}


_PLAIN = {
    bool: {"type": "boolean"},
    int: {"type": "integer", "minimum": 1},
    float: {"type": "number", "exclusiveMinimum": 0},
    str: {"type": "string"},
}


def _schema_of(kind: Any) -> dict:
    """Return the JSON schema of a field of this type; lists of choices may be null, for the default."""
    if kind in _PLAIN:
        return _PLAIN[kind]
    origin, parts = get_origin(kind), [part for part in get_args(kind) if part is not type(None)]
    if origin is Literal:
        return {"enum": parts}
    if origin is tuple:
        return {"type": ["array", "null"], "minItems": 1, "items": _schema_of(parts[0])}
    if origin in (Union, UnionType):
        schemas = [_schema_of(part) for part in parts]
        return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    raise TypeError(f"a setting of the type {kind} needs a schema of its own")
