"""MeCo: how far the channels (rows C) of a feature map are from being linearly dependent; one noise image."""

from libranas.zero_cost.captures import Maps
from libranas.zero_cost.proxies.common import correlation, only_value
from libranas.zero_cost.proxy import NOISE, Proxy
from libranas.zero_cost.spectra import SMALLEST


def _meco(maps: Maps, options):
    correlations = (correlation(rows_CX).nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0) for rows_CX in maps.maps.values())
    found = [SMALLEST.at(correlation_CC, options) for correlation_CC in correlations]
    # Numbers that are there are added up where they are: to wait for each would leave a GPU idle.
    return {"value": sum(SMALLEST.numbers(found) if options.tensor_cores else found)}


MECO = Proxy(
    name="meco",
    version=1,
    title="sum over feature maps of the smallest eigenvalue of the correlation of their rows",
    source="Jiang et al., MeCo (NeurIPS 2023)",
    run=NOISE,
    captures={"maps": _meco},
    combine=only_value,
    undefined_for="the network has no feature map with positions",
)
