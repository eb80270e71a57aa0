"""Build the network of an architecture of a search space: :func:`build`.

Importing this package loads neither torch nor timm. :mod:`libranas.networks.timm_models` registers the networks with
timm, for training and export.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from libranas.core.arch import Arch
from libranas.spaces import Space

if TYPE_CHECKING:
    from torch import nn

__all__ = ["FAMILIES", "build", "network_module"]

#: Families of search spaces with a module of this package: it has a class ``NETWORK``, ``model_args(space, arch)`` and
#: ``TIMM_CFG``.
FAMILIES = ("autoformer", "darts", "nasbench101", "nasbench201", "pit", "transnas101")


def network_module(family: str) -> ModuleType:
    """The module of the networks of a family."""
    return importlib.import_module(f"libranas.networks.{family}")


def build(
    space: Space, arch: Arch, seed: int, drop_path_rate: float = 0.0, fused: bool = False, timm: bool = False
) -> "nn.Module":
    """A stand-alone network with its own initial weights, on the CPU, in float32.

    Parameters
    ----------
    seed : int
        Seed of the initial weights. The global random state is left as it was.
    drop_path_rate : float
        Stochastic depth of the last block (training only; scoring uses 0).
    fused : bool
        Use PyTorch's fused attention: for training. Scoring switches it off by itself where it has to.
    timm : bool
        Let timm make it, with timm's description of a model: for exports.

    Raises
    ------
    ValueError
        If `arch` is not a member of `space`.
    """
    import torch

    if not space.contains(arch):
        raise ValueError(f"{arch.json} is not a member of {space}")
    module = network_module(space.family)
    arguments = {**module.model_args(space, arch), "drop_path_rate": drop_path_rate}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if timm:
            from libranas.networks.timm_models import create

            model = create(space.family, **arguments)
        else:
            model = module.NETWORK(**arguments)
    for part in model.modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = fused
    return model
