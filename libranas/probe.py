"""Looks into a network: which modules count, and what passes through them.

:func:`examine` sorts the modules of any ``nn.Module``; :class:`Recorder` captures one run of it through
hooks that cannot leak. Gradients of a weight are reduced to moments over units inside the backward hook,
so memory is one layer's working set and never samples x parameters.

The rule behind it: a linear layer with input A (samples x positions x in) and output gradient D has, for
sample s, the weight gradient ``D_s^T A_s``; a convolution is the same after unfolding its input.

Legend: U units, G groups of a convolution, K positions of a unit, I in, O out, B images, P positions,
D channels, S samples, V units of an activation layer.
"""

from collections.abc import Callable
from dataclasses import dataclass

import timm.layers
import torch
import torch.nn.functional as F
from torch import nn

from libranas.errors import LibranasError
from libranas.proxies.base import Activation, Gradient
from libranas.scorecard import Axis

LAYERS = (nn.Linear, nn.Conv2d, nn.Conv1d)
BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, *BATCH_NORMS)
ACTIVATIONS = (nn.ReLU, nn.GELU)

#: Elements of one chunk of per-unit gradients (32 MiB in float32).
CHUNK = 2**23


@dataclass(frozen=True)
class Anatomy:
    """The modules of a network by their role; names as in ``named_modules``.

    ``excluded`` names the parameters that belong to no layer: biases, norms, embeddings and bare
    parameters (class token, positions, relative-position tables). ``coupled`` says that batch
    normalisation is present, which in training mode makes the loss of a sample depend on the others.
    """

    layers: dict[str, nn.Module]
    activations: dict[str, nn.Module]
    features: list[tuple[str, nn.Module, str]]
    excluded: tuple[str, ...]
    coupled: bool


def examine(model: nn.Module, features: tuple[str, ...] = ()) -> Anatomy:
    """Sort the modules of `model`.

    Parameters
    ----------
    features : names of modules whose outputs are the primary blocks; default: what is known of the model
        (`feature_points`).

    Raises
    ------
    LibranasError
        For a module that owns a weight of a type without a rule; it is named. Never a silent zero.
    """
    layers, activations, counted = {}, {}, set()
    for name, module in model.named_modules():
        if isinstance(module, LAYERS):
            if not _ordinary(module):
                raise LibranasError(
                    f"No rule for layer {name or '(root)'} of type {type(module).__name__}: its weight is computed "
                    "or it has a forward of its own.",
                    "Fold it into a plain layer (see torch.nn.utils.parametrize.remove_parametrizations).",
                )
            layers[name] = module
            counted.add(f"{name}.weight" if name else "weight")
        elif isinstance(module, ACTIVATIONS):
            activations[name] = module
        elif not isinstance(module, (*NORMS, nn.Embedding)):
            unknown = [p for p, _ in module.named_parameters(recurse=False) if "weight" in p]
            if unknown:
                raise LibranasError(
                    f"No rule for layer {name or '(root)'} of type {type(module).__name__} "
                    f"with parameters {', '.join(unknown)}.",
                    f"Known layers: {', '.join(c.__name__ for c in LAYERS)}. Build the network from those.",
                )
    excluded = tuple(name for name, _ in model.named_parameters() if name not in counted)
    coupled = any(isinstance(m, BATCH_NORMS) for m in model.modules())
    return Anatomy(layers, activations, feature_points(model, features), excluded, coupled)


def _ordinary(module: nn.Module) -> bool:
    """Whether a layer's gradient follows from its input by the rule of its base class, in its own parameter."""
    if type(module) is timm.layers.Linear:  # its own forward differs only under autocast
        return True
    methods = ("forward", "_conv_forward")
    base = next(c for c in LAYERS if isinstance(module, c))
    same = all(getattr(type(module), m, None) is getattr(base, m, None) for m in methods)
    return same and "weight" in module._parameters


def feature_points(model: nn.Module, names: tuple[str, ...] = ()) -> list[tuple[str, nn.Module, str]]:
    """Where the primary blocks end: (name, module, ``"input"`` or ``"output"``) in execution order.

    For timm vision transformers the residual stream after attention is what enters ``norm2``.
    """
    if names:
        modules = dict(model.named_modules())
        missing = [n for n in names if n not in modules]
        if missing:
            raise LibranasError(f"Option features: no module is called {', '.join(missing)}.", "See named_modules().")
        return [(n, modules[n], "output") for n in names]
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.Module) or not all(hasattr(b, "norm2") and hasattr(b, "attn") for b in blocks):
        return []
    points = []
    for i, block in enumerate(blocks):
        points.append((f"blocks.{i}.after_attn", block.norm2, "input"))
        points.append((f"blocks.{i}.after_mlp", block, "output"))
    return points


class Moments:
    """Running moments of the gradient of one weight over units (Chan et al., 1979): no cancellation."""

    def __init__(self, signed: bool, absolute: bool):
        self.signed, self.absolute = signed, absolute
        self.units = 0
        self.mean_OI = self.m2_OI = self.abs_mean_OI = self.abs_m2_OI = None

    def add(self, gradient_UOI: torch.Tensor) -> None:
        before = self.units
        self.units += len(gradient_UOI)
        self.mean_OI, self.m2_OI = self._merge(gradient_UOI, before, self.mean_OI, self.m2_OI, self.signed)
        if self.absolute:
            self.abs_mean_OI, self.abs_m2_OI = self._merge(
                gradient_UOI.abs(), before, self.abs_mean_OI, self.abs_m2_OI, True
            )
        elif self.signed:  # ZiCo's numerator is a mean of |g| even where its variance is of g
            mean_OI = gradient_UOI.abs().mean(0)
            self.abs_mean_OI, _ = self._combine_means(mean_OI, len(gradient_UOI), before, self.abs_mean_OI)

    @staticmethod
    def _combine_means(mean_OI, units, before, old_mean_OI):
        if before == 0:
            return mean_OI, None
        delta_OI = mean_OI - old_mean_OI
        return old_mean_OI + delta_OI * (units / (before + units)), delta_OI

    def _merge(self, gradient_UOI, before, old_mean_OI, old_m2_OI, second: bool):
        units = len(gradient_UOI)
        chunk_mean_OI = gradient_UOI.mean(0)
        mean_OI, delta_OI = self._combine_means(chunk_mean_OI, units, before, old_mean_OI)
        if not second:
            return mean_OI, None
        m2_OI = (gradient_UOI - chunk_mean_OI).square_().sum(0)
        if delta_OI is not None:
            m2_OI += old_m2_OI + delta_OI.square_() * (before * units / (before + units))
        return mean_OI, m2_OI

    def gradient(self, weight_OI: torch.Tensor) -> Gradient:
        return Gradient(weight_OI, self.units, self.mean_OI, self.m2_OI, self.abs_mean_OI, self.abs_m2_OI)


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


def add_gradients(moments: Moments, a_UGKI: torch.Tensor, d_UGKO: torch.Tensor) -> None:
    """Add the weight gradients of all units to `moments`, a chunk of units at a time."""
    units, groups, _, width = a_UGKI.shape
    rows = groups * d_UGKO.shape[-1]
    if not (moments.signed or moments.absolute):  # the mean alone: an ordinary weight gradient
        a, d = a_UGKI.transpose(0, 1).flatten(1, 2), d_UGKO.transpose(0, 1).flatten(1, 2)
        moments.add((d.transpose(1, 2) @ a).reshape(1, rows, width) / units)
        moments.units = units
        return
    chunk = max(1, CHUNK // (rows * width))
    for start in range(0, units, chunk):
        a, d = a_UGKI[start : start + chunk], d_UGKO[start : start + chunk]
        moments.add((d.transpose(2, 3) @ a).reshape(len(a), rows, width))


@dataclass
class _Calls:
    """Uses of one weight in a run (more than one where it is shared), waiting for their gradients."""

    name: str
    module: nn.Module
    weight: torch.Tensor
    expected: int = 0
    operands: list = None


class Recorder:
    """Hooks on a network for one run; a context manager that leaves none behind.

    Parameters
    ----------
    anatomy : Anatomy
    units : int
        Number of gradient units that the batch is cut into; contiguous and equal.
    on_gradient : callable (layer name, module, weight, a_UGKI, d_UGKO), optional
        Called in the backward pass as soon as a weight's gradient is complete. ``None`` watches no layer.
    on_activation : callable (place name, Activation), optional
        Called in the forward pass.
    keep_features : bool
        Keep the tensors at the primary blocks in ``features``.

    Attributes
    ----------
    order : list of (axis, place name)
        Places in the order of their first execution.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        units: int = 1,
        on_gradient: Callable | None = None,
        on_activation: Callable | None = None,
        keep_features: bool = False,
    ):
        self.anatomy, self.units = anatomy, units
        self.on_gradient, self.on_activation, self.keep_features = on_gradient, on_activation, keep_features
        self.order: list[tuple[str, str]] = []
        self.features: dict[str, torch.Tensor] = {}
        self._weights_seen: set[int] = set()
        self._calls: dict[int, _Calls] = {}
        self._activation_calls: dict[str, int] = {}
        self._handles: list = []

    def __enter__(self):
        for name, module in self.anatomy.layers.items():
            self._handles.append(module.register_forward_hook(self._layer_hook(name)))
        for name, module in self.anatomy.activations.items():
            self._handles.append(module.register_forward_hook(self._activation_hook(name)))
        for name, module, side in self.anatomy.features:
            self._handles.append(module.register_forward_hook(self._feature_hook(name, side)))
        return self

    def __exit__(self, *_):
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._calls.clear()

    def axes(self) -> dict[str, Axis]:
        """The places of each axis, with the depth of the last weight layer before them."""
        total = max(1, sum(axis == "layer" for axis, _ in self.order))
        names: dict[str, list[str]] = {"layer": [], "activation": [], "feature": []}
        depths: dict[str, list[float]] = {"layer": [], "activation": [], "feature": []}
        layers = 0
        for axis, name in self.order:
            layers += axis == "layer"
            names[axis].append(name)
            depths[axis].append(max(0, layers - 1) / total)
        return {axis: Axis(tuple(names[axis]), tuple(depths[axis])) for axis in names}

    def _layer_hook(self, name: str):
        def hook(module, args, output):
            if id(module.weight) not in self._weights_seen:  # a shared weight is one layer
                self._weights_seen.add(id(module.weight))
                self.order.append(("layer", name))
            if self.on_gradient is None or not output.requires_grad:
                return
            inputs = args[0].detach()
            version = args[0]._version
            calls = self._calls.setdefault(id(module.weight), _Calls(name, module, module.weight, 0, []))
            calls.expected += 1

            def receive(out_grad):
                if args[0]._version != version:
                    raise LibranasError(
                        f"The input of layer {name} was changed in place after the layer used it.",
                        "Make the operation that follows it out-of-place (inplace=False).",
                    )
                if len(inputs) % self.units:
                    raise LibranasError(
                        f"Layer {name} got an input with {len(inputs)} rows, which the {self.units} units of the "
                        "batch do not divide: its rows are not samples, so it has no gradient a sample.",
                        "Score this network with unit='microbatch', or leave out proxies that need variances.",
                    )
                calls.operands.append(unit_operands(module, inputs, out_grad, self.units))
                if len(calls.operands) == calls.expected:
                    a, d = (torch.cat(x, dim=2) if len(x) > 1 else x[0] for x in zip(*calls.operands, strict=True))
                    calls.operands = None
                    self.on_gradient(calls.name, calls.module, calls.weight, a, d)

            output.register_hook(receive)

        return hook

    def _activation_hook(self, name: str):
        def hook(module, args, output):
            # A module that is used twice is two places. In-place ReLU has overwritten its input by now, but
            # with values of the same sign where they fire.
            count = self._activation_calls.get(name, 0) + 1
            self._activation_calls[name] = count
            place = name if count == 1 else f"{name}#{count}"
            self.order.append(("activation", place))
            if self.on_activation is not None:
                self.on_activation(place, Activation((args[0].detach() > 0).flatten(1)))

        return hook

    def _feature_hook(self, name: str, side: str):
        def hook(module, args, output):
            self.order.append(("feature", name))
            if self.keep_features:
                self.features[name] = args[0] if side == "input" else output

        return hook


def positions_last_channels(x: torch.Tensor) -> torch.Tensor:
    """A feature as (images, positions, channels): tokens as they are, images flattened."""
    if x.dim() == 4:
        return x.flatten(2).transpose(1, 2)
    return x if x.dim() == 3 else x.unsqueeze(1)
