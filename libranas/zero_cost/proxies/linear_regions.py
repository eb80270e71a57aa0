"""Number of linear regions (TE-NAS, Chen et al., ICLR 2021)."""

from libranas.zero_cost.proxies.nwot import _agreement
from libranas.zero_cost.proxies.patterns import NO_ACTIVATION
from libranas.zero_cost.proxy import DATA, Proxy


def _combine_regions(places, _):
    """Two samples lie in the same linear region if they agree on every unit."""
    kernel_SS = sum(place["kernel"] for place in places)
    same_SS = kernel_SS == sum(place["units"] for place in places)
    again_S = same_SS.tril(-1).any(1)  # an earlier sample lies in the same region
    return float(len(again_S) - again_S.sum().item()), {}


LINEAR_REGIONS = Proxy(
    name="linear_regions",
    version=1,
    title="number of distinct activation codes of samples, over all units of all layers",
    source="Chen et al., TE-NAS (ICLR 2021), R; on the batch at its own size, where all codes may differ",
    run=DATA,
    captures={"activation": _agreement},
    combine=_combine_regions,
    undefined_for=NO_ACTIVATION,
)
