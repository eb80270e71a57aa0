"""The registry of zero-cost proxies.

To add one: write a :class:`libranas.proxies.base.Proxy` record in the module of its family and list it in
that module's ``PROXIES``. The tests of ``tests/contract`` then apply to it.
"""

from libranas.errors import LibranasError
from libranas.proxies import (
    activation,
    az,
    curvature,
    features,
    gradient,
    jacobian,
    perturbation,
    sample,
    size,
    synaptic,
)
from libranas.proxies.base import Options, Proxy

__all__ = ["Options", "Proxy", "get", "list_proxies", "with_parts"]

_REGISTRY: dict[str, Proxy] = {}
for _family in (size, gradient, jacobian, curvature, activation, sample, features, synaptic, perturbation, az):
    for _proxy in _family.PROXIES:
        if _proxy.name in _REGISTRY:
            raise RuntimeError(f"two proxies are called {_proxy.name!r}")
        _REGISTRY[_proxy.name] = _proxy


def list_proxies() -> list[str]:
    """Names of all proxies, by family."""
    return list(_REGISTRY)


def get(name: str) -> Proxy:
    """The record of a proxy; an unknown name is an error that lists the known ones."""
    try:
        return _REGISTRY[name]
    except KeyError:
        raise LibranasError(f"Unknown proxy {name!r}.", f"Known proxies: {', '.join(_REGISTRY)}.") from None


def with_parts(names) -> list[str]:
    """`names` without repeats, each composite proxy preceded by its parts."""
    ordered: dict[str, None] = {}
    for name in names:
        for part in (*get(name).parts, name):
            get(part)
            ordered[part] = None
    return list(ordered)
