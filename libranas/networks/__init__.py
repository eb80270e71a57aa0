"""Build the network of an architecture of a search space: :func:`build`.

Importing this package loads neither torch nor timm. :mod:`libranas.networks.timm_models` registers the networks with
timm, for training and export.
"""

from collections.abc import Callable
from contextlib import nullcontext
from pkgutil import resolve_name
from types import ModuleType
from typing import TYPE_CHECKING

from libranas.core.arch import Arch
from libranas.spaces import FAMILIES, Space

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["build", "builder"]


def builder(family: str) -> ModuleType | Callable:
    """Import what builds the networks of a family.

    Returns
    -------
    a module with a class ``NETWORK``, ``model_args(space, arch)`` and ``TIMM_CFG``; or a function
    ``(space, arch) -> nn.Module``
    """
    network = FAMILIES[family].network
    return resolve_name(network) if isinstance(network, str) else network


def build(
    space: Space,
    arch: Arch,
    seed: int,
    drop_path_rate: float = 0.0,
    fused: bool = False,
    timm: bool = False,
    device: "str | torch.device" = "cpu",
) -> "nn.Module":
    """Build a stand-alone network with its own initial weights, in float32.

    Parameters
    ----------
    seed : int
        Seed of the initial weights. The global random state is left as it was.
    drop_path_rate : float
        Stochastic depth of the last block (training only; scoring uses 0). A function of another package has none.
    fused : bool
        Use PyTorch's fused attention: for training. Scoring switches it off by itself where it has to.
    timm : bool
        Let timm make it, with timm's description of a model: for exports. Not for a function of another package.
    device : str or torch.device
        Where its weights are made and stay. A function of another package makes them on the CPU.

    Raises
    ------
    ValueError
        If `arch` is not a member of `space`.
    LibranasError
        If the networks have no stochastic depth and `drop_path_rate` is not 0.
    """
    import torch

    if not space.contains(arch):
        raise ValueError(f"{arch.json} is not a member of {space}")
    made_by = builder(space.family)
    place = None if torch.device(device).type == "cpu" else torch.device(device)  # as a context, it costs time
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if callable(made_by):
            from libranas.networks.operations import no_drop_path

            no_drop_path(drop_path_rate, space.family)
            model = made_by(space, arch)
        else:
            from libranas.networks.initial_weights import drawing

            arguments = {**made_by.model_args(space, arch), "drop_path_rate": drop_path_rate}
            with place or nullcontext(), drawing(seed):
                if timm:
                    from libranas.networks.timm_models import create

                    model = create(space.family, **arguments)
                else:
                    model = made_by.NETWORK(**arguments)
    for part in model.modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = fused
    return model.to(place) if place else model
