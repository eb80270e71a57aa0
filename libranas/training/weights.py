"""Weights of a network in a safetensors file."""

import logging
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from timm.layers import resample_abs_pos_embed
from torch import nn

from libranas.core.errors import LibranasError
from libranas.core.files import atomic_path

log = logging.getLogger("libranas")


def save_weights(path: Path, model: nn.Module) -> None:
    """Write a state dict as safetensors, atomically; LibranasError if it has more than tensors."""
    state = model.state_dict()
    if odd := [name for name, value in state.items() if not isinstance(value, torch.Tensor)]:
        raise LibranasError(
            f"The state dict of {type(model).__name__} has {odd[0]}, which is no tensor.",
            "Keep it in an attribute of the network, not in get_extra_state().",
        )
    with atomic_path(path) as temporary:  # copies: the format has no tensors that share memory
        save_file({n: t.cpu().clone(memory_format=torch.contiguous_format) for n, t in state.items()}, temporary)


def load_weights(model: nn.Module, path: Path) -> None:
    """Begin with the weights of a file. A head for other classes is left out; positions are resampled to the size."""
    own = model.state_dict()
    try:
        given = load_file(path)
        theirs, ours = given.get("pos_embed"), own.get("pos_embed")
        grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
        if grid and None not in (theirs, ours) and theirs.ndim == ours.ndim == 3 and theirs.shape != ours.shape:
            prefix = ours.shape[1] - grid[0] * grid[1]  # of class and other tokens
            given["pos_embed"] = resample_abs_pos_embed(theirs, grid, num_prefix_tokens=prefix)
            log.info("The positions of %s are resampled to %d x %d patches.", path, *grid)
    except Exception as error:  # of the file, or positions of another kind
        raise LibranasError(
            f"--weights {path} cannot be used: {error}.", "Name a .safetensors file of this architecture."
        ) from None
    fitting = {name: tensor for name, tensor in given.items() if name in own and own[name].shape == tensor.shape}
    others = sorted(set(own) - set(fitting))
    if len(others) > 0.1 * len(own):
        raise LibranasError(
            f"--weights {path} has {len(fitting)} of the model's {len(own)} tensors; it lacks {', '.join(others[:5])}.",
            "Name the weights of this architecture.",
        )
    model.load_state_dict(fitting, strict=False)
    if others:
        log.info("Not in %s, begun anew: %s", path, ", ".join(others))
