"""MeCo: how far the channels of a feature map are from being linearly dependent; one noise image, no labels.

Legend: C rows of a feature map (channels, or tokens as the released code has them), X columns.
"""

import torch

from libranas.zero_cost.captures import Maps
from libranas.zero_cost.options import Options
from libranas.zero_cost.proxies.common import correlation
from libranas.zero_cost.proxy import NOISE, Proxy


def _meco(maps: Maps, options: Options):
    generator = torch.Generator().manual_seed(maps.options_seed)
    total = 0.0
    for rows_CX in maps.maps.values():
        size, chosen = len(rows_CX), options.meco_channels or len(rows_CX)
        scale = 1.0
        if chosen < size:
            drawn = torch.randperm(size, generator=generator)[:chosen]
            rows_CX, scale = rows_CX[drawn.to(rows_CX.device)], size / chosen
        correlation_CC = correlation(rows_CX).nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        total = total + scale * torch.linalg.eigvalsh(correlation_CC)[0]
    return {"value": total}


MECO = Proxy(
    name="meco",
    version=1,
    title="sum over feature maps of the smallest eigenvalue of the correlation of their rows",
    source="Jiang et al., MeCo (NeurIPS 2023); its MeCo_opt with meco_channels=8",
    run=NOISE,
    captures={"maps": _meco},
    combine=lambda places, _: (float(places[0]["value"]), {}),
    undefined_for="the network has no feature map with positions",
)
