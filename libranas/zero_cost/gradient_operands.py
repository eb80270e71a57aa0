"""Rules for the types of layers that are scored: how the gradient of each sample is made.

A new type of layer is one more entry of :data:`LAYER_RULES`.
Legend: U units, G groups of a convolution, K positions of a unit, I in, O out, B images, P positions, D channels.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class LayerRule:
    """Rule of the engine for one type of layer.

    Attributes
    ----------
    operands : callable (module, inputs, out_grad, units) -> (a_UGKI, d_UGKO)
        Their product ``einsum('ugko,ugki->ugoi')`` is the weight gradient of each unit.
    forward : callable (module, inputs, weight, bias) -> output
        The output once more, with other tensors than the module's own.
    positions : callable (output) -> (output_BPD, whether its positions are tokens)
    """

    operands: Callable
    forward: Callable
    positions: Callable


def is_layer(module: nn.Module) -> bool:
    """Return whether a module is of a type with a rule."""
    return isinstance(module, tuple(LAYER_RULES))


def rule_of(module: nn.Module) -> LayerRule:
    """Return the rule for a layer's type."""
    return next(rule for kind, rule in LAYER_RULES.items() if isinstance(module, kind))


def as_matrix(weight: torch.Tensor) -> torch.Tensor:
    """Return a weight as O x I."""
    return weight.flatten(1)


def _linear_operands(module: nn.Linear, inputs, out_grad, units: int):
    a, d = (x.reshape(units, 1, -1, x.shape[-1]) for x in (inputs, out_grad))
    return a, d


def _linear_positions(output: torch.Tensor):
    tokens = output.dim() > 2
    return (output.flatten(1, -2) if tokens else output.unsqueeze(1)), tokens


def _conv2d_operands(module: nn.Conv2d, inputs, out_grad, units: int):
    columns = F.unfold(_padded(module, inputs), module.kernel_size, module.dilation, 0, module.stride)
    return _convolution_operands(module, columns, out_grad, units)


def _conv1d_operands(module: nn.Conv1d, inputs, out_grad, units: int):
    """Unfold the input as an image of height 1."""
    kernel, dilation, stride = ((1, *v) for v in (module.kernel_size, module.dilation, module.stride))
    columns = F.unfold(_padded(module, inputs).unsqueeze(2), kernel, dilation, 0, stride)
    return _convolution_operands(module, columns, out_grad, units)


def _padded(module, inputs: torch.Tensor) -> torch.Tensor:
    padding = module._reversed_padding_repeated_twice
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    return F.pad(inputs, padding, mode=mode) if any(padding) else inputs


def _convolution_operands(module, columns: torch.Tensor, out_grad: torch.Tensor, units: int):
    """Sort unfolded columns (B, channels x kernel, positions) and output gradients by units and groups."""
    per_unit, groups = len(columns) // units, module.groups
    a = columns.reshape(units, per_unit, groups, -1, columns.shape[-1]).permute(0, 2, 1, 4, 3)
    d = out_grad.reshape(units, per_unit, groups, module.out_channels // groups, -1).permute(0, 2, 1, 4, 3)
    return a.flatten(2, 3), d.flatten(2, 3)


def _convolution_positions(output: torch.Tensor):
    return output.flatten(2).transpose(1, 2), False


#: Type of layer -> its rule. Where there is none, or it does not hold, autograd gives the gradient a unit at a time.
LAYER_RULES: dict[type[nn.Module], LayerRule] = {
    nn.Linear: LayerRule(_linear_operands, lambda module, *args: F.linear(*args), _linear_positions),
    nn.Conv2d: LayerRule(_conv2d_operands, nn.Conv2d._conv_forward, _convolution_positions),
    nn.Conv1d: LayerRule(_conv1d_operands, nn.Conv1d._conv_forward, _convolution_positions),
}


def norm_gradient(module: nn.Module, normal: torch.Tensor, out_grad: torch.Tensor, units: int) -> torch.Tensor:
    """Return the gradient of a norm's weight for each unit, (U, W), from what the weight multiplies."""
    channels_last = isinstance(module, (nn.LayerNorm, nn.RMSNorm))
    pixels = 1 if channels_last else math.prod(out_grad.shape[2:])
    return (normal * out_grad).reshape(units, -1, module.weight.numel(), pixels).sum((1, 3))


def normalised(module: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Return what a norm's weight multiplies; batch norm in evaluation mode only."""
    if isinstance(module, nn.LayerNorm):
        return F.layer_norm(inputs, module.normalized_shape, None, None, module.eps)
    if isinstance(module, nn.RMSNorm):
        return F.rms_norm(inputs, module.normalized_shape, None, module.eps)
    if isinstance(module, nn.GroupNorm):
        return F.group_norm(inputs, module.num_groups, None, None, module.eps)
    return F.batch_norm(inputs, module.running_mean, module.running_var, None, None, False, 0.0, module.eps)
