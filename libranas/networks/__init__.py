"""Builds a plain ``nn.Module`` from an architecture of a search space.

The front door is :func:`build`; importing this package also registers our models with timm, which
``timm.create_model("local-dir:...")`` of an exported network needs.
"""

from pkgutil import resolve_name

import timm
import torch
from timm.layers import set_fused_attn
from torch import nn

from libranas.core.arch import Arch
from libranas.networks.operations import no_drop_path
from libranas.spaces import FAMILIES, Space

__all__ = ["build"]


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
            return _network(space, arch, drop_path_rate)
        finally:
            set_fused_attn(bool(previous))


def _network(space: Space, arch: Arch, drop_path_rate: float) -> nn.Module:
    """Build a network by the function of its family, or by timm with the ``model_args(space, arch)`` of its module."""
    builder = FAMILIES[space.family].network
    builder = resolve_name(builder) if isinstance(builder, str) else builder
    if callable(builder):
        no_drop_path(drop_path_rate, space.family)
        return builder(space, arch)
    return timm.create_model(
        f"libranas_{space.family}", **builder.model_args(space, arch), drop_path_rate=drop_path_rate
    )


for _family in FAMILIES.values():
    if isinstance(_family.network, str):
        resolve_name(_family.network)  # a module registers its networks with timm
