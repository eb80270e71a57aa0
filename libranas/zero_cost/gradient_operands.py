"""How a layer's per-sample gradient is made from its input and its output gradient.

A linear layer with input A (samples x positions x in) and output gradient D has, for sample s, the weight gradient
``D_s^T A_s``. A convolution is the same after unfolding its input.

Legend: U units, G groups of a convolution, K positions of a unit, I in, O out.
"""

import torch
import torch.nn.functional as F
from torch import nn


def as_matrix(weight: torch.Tensor) -> torch.Tensor:
    """A weight as O x I."""
    return weight.flatten(1)


def unit_operands(
    module: nn.Module, inputs: torch.Tensor, out_grad: torch.Tensor, units: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Input and output gradient of a layer as (U, G, K, I) and (U, G, K, O), so that
    ``einsum('ugko,ugki->ugoi')`` are the weight gradients of the units."""
    if isinstance(module, nn.Linear):
        return (
            inputs.reshape(units, 1, -1, inputs.shape[-1]),
            out_grad.reshape(units, 1, -1, out_grad.shape[-1]),
        )
    if isinstance(module, nn.Conv1d):  # as a convolution over images of height 1
        inputs, out_grad = inputs.unsqueeze(2), out_grad.unsqueeze(2)
        kernel, dilation, stride = ((1, *v) for v in (module.kernel_size, module.dilation, module.stride))
    else:
        kernel, dilation, stride = module.kernel_size, module.dilation, module.stride
    padding = module._reversed_padding_repeated_twice
    if isinstance(module, nn.Conv1d):
        padding = [*padding, 0, 0]
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    if any(padding):
        inputs = F.pad(inputs, padding, mode=mode)
    columns = F.unfold(inputs, kernel, dilation, 0, stride)  # (B, channels x kernel, positions)
    per_unit, groups = len(inputs) // units, module.groups
    a = columns.reshape(units, per_unit, groups, -1, columns.shape[-1]).permute(0, 2, 1, 4, 3)
    d = out_grad.reshape(units, per_unit, groups, module.out_channels // groups, -1).permute(0, 2, 1, 4, 3)
    return a.flatten(2, 3), d.flatten(2, 3)


def normalised(module: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """What a norm's weight multiplies; batch norm in evaluation mode only."""
    if isinstance(module, nn.LayerNorm):
        return F.layer_norm(inputs, module.normalized_shape, None, None, module.eps)
    if isinstance(module, nn.RMSNorm):
        return F.rms_norm(inputs, module.normalized_shape, None, module.eps)
    if isinstance(module, nn.GroupNorm):
        return F.group_norm(inputs, module.num_groups, None, None, module.eps)
    return F.batch_norm(inputs, module.running_mean, module.running_var, None, None, False, 0.0, module.eps)
