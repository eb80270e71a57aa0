"""Size: #params and MACs. No forward values, no data; the baselines that every proxy has to beat."""

from libranas.proxies.base import ANALYTIC, Proxy

PARAMS = Proxy(
    name="params",
    version=1,
    title="number of trainable parameters",
    source="baseline",
    run=ANALYTIC,
    need="network",
    reduce=lambda network, _: network.params,
    combine=lambda places, _: (float(places[0]), {}),
)

FLOPS = Proxy(
    name="flops",
    version=1,
    title="multiply-accumulates of one image: convolutions and all matrix products, attention included",
    source="baseline",
    run=ANALYTIC,
    need="network",
    reduce=lambda network, _: network.macs,
    combine=lambda places, _: (float(places[0]), {}),
)

PROXIES = (PARAMS, FLOPS)
