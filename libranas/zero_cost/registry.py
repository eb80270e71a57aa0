"""The registry of zero-cost proxies.

To add one: write a :class:`libranas.zero_cost.proxy.Proxy` record in a new file of ``libranas/zero_cost/proxies``.
"""

from libranas.core.registry import Registry
from libranas.zero_cost.options import Options
from libranas.zero_cost.proxy import READOUT, Proxy

__all__ = ["PROXIES", "Options", "Proxy", "get", "list_proxies", "reads_out", "with_parts"]

PROXIES = Registry(Proxy, "libranas.zero_cost.proxies", "proxy", "libranas.proxies")


def list_proxies() -> list[str]:
    """Names of all proxies."""
    return list(PROXIES)


def get(name: str) -> Proxy:
    """The record of a proxy; an unknown name is an error that lists the known ones."""
    return PROXIES.get_or_explain(name)


def with_parts(names) -> list[str]:
    """`names` without repeats, each composite proxy preceded by its parts."""
    ordered: dict[str, None] = {}
    for name in names:
        for part in (*get(name).parts, name):
            get(part)
            ordered[part] = None
    return list(ordered)


def reads_out(names) -> bool:
    """Whether one of the proxies needs the images of the readout."""
    return any(get(name).run == READOUT for name in with_parts(names))


def versions(names) -> list[str]:
    """Names and versions of all that the values of `names` depend on: the proxies, and the parts of composite ones."""
    return [f"{name} {get(name).version}" for name in with_parts(names)]
