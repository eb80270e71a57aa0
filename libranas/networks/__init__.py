"""Builds a plain ``nn.Module`` from an architecture of a search space.

The front door is :func:`build`; importing this package also registers our models with timm, which
``timm.create_model("local-dir:...")`` of an exported network needs.
"""

import timm
import torch
from timm.layers import set_fused_attn
from torch import nn

from libranas.core.arch import Arch
from libranas.networks import autoformer as vit
from libranas.networks import darts, nasbench101, nasbench201, pit, transnas101
from libranas.spaces import Space

__all__ = ["build"]

#: The module of each family: it registers the timm model ``libranas_FAMILY`` and has ``model_args(space, arch)``.
_NETWORKS = {
    "autoformer": vit,
    "darts": darts,
    "nasbench101": nasbench101,
    "nasbench201": nasbench201,
    "pit": pit,
    "transnas101": transnas101,
}


def build(space: Space, arch: Arch, seed: int, drop_path_rate: float = 0.0, fused: bool = False) -> nn.Module:
    """A stand-alone network with its own initial weights, on the CPU, in float32.

    Parameters
    ----------
    seed : int
        Seed of the initial weights. The global random state is left as it was.
    drop_path_rate : float
        Stochastic depth of the last block (training only; scoring uses 0).
    fused : bool
        Use PyTorch's fused attention: for training. Scoring switches it off by itself where it has to.

    Raises
    ------
    ValueError
        If `arch` is not a member of `space`.
    """
    if not space.contains(arch):
        raise ValueError(f"{arch.json} is not a member of {space}")
    from timm.layers import use_fused_attn

    previous = use_fused_attn()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        set_fused_attn(fused)
        try:
            arguments = _NETWORKS[space.family].model_args(space, arch)
            return timm.create_model(f"libranas_{space.family}", **arguments, drop_path_rate=drop_path_rate)
        finally:
            set_fused_attn(bool(previous))
