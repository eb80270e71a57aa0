"""NASWOT (Mellor et al., ICML 2021)."""

from libranas.zero_cost.proxies.common import log_determinant
from libranas.zero_cost.proxies.patterns import NO_ACTIVATION, agreement
from libranas.zero_cost.proxy import DATA, Proxy


def _combine_nwot(places, _):
    return log_determinant(sum(place["kernel"] for place in places)).item(), {}


NWOT = Proxy(
    name="nwot",
    version=1,
    title="log det of the kernel of agreeing activation signs between samples",
    source="Mellor et al., Neural architecture search without training (ICML 2021), Eq. 2",
    run=DATA,
    captures={"activation": agreement},
    combine=_combine_nwot,
    undefined_for=NO_ACTIVATION,
)
