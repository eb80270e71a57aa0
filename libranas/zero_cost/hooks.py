"""Looks into a network: which modules count, and what passes through them.

:func:`examine` sorts the modules of any ``nn.Module``; :class:`Recorder` captures one run of it through
hooks that cannot leak. Gradients of a weight are reduced to moments over units inside the backward hook
(``libranas.zero_cost.gradient_moments``), so memory is one layer's working set and never samples x parameters.

The rule behind it: a linear layer with input A (samples x positions x in) and output gradient D has, for
sample s, the weight gradient ``D_s^T A_s``; a convolution is the same after unfolding its input.

Legend: U units, G groups of a convolution, K positions of a unit, I in, O out, B images, P positions,
D channels, S samples, V units of an activation layer, W entries of a norm's weight.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from libranas.core.errors import LibranasError
from libranas.core.scorecard import Axis
from libranas.zero_cost.anatomy import Anatomy
from libranas.zero_cost.gradient_operands import normalised, unit_operands


@dataclass
class _Calls:
    """Uses of one weight in a run (more than one where it is shared), waiting for their gradients."""

    emit: Callable[[list], None]
    expected: int = 0
    received: list = field(default_factory=list)

    def receive(self, what) -> None:
        self.received.append(what)
        if len(self.received) == self.expected:
            self.flush()

    def flush(self) -> None:
        """Hand on what has arrived; uses that the loss does not depend on add nothing."""
        received, self.received = self.received, []
        if received:
            self.emit(received)


class Recorder:
    """Hooks on a network for one run; a context manager that leaves none behind.

    Parameters
    ----------
    anatomy : Anatomy
    watched : callable (axis, place name) -> bool, optional
        Places that are looked at; default all. The order of execution is always recorded.
    on_products : callable (layer name, weight, a_UGKI, d_UGKO), optional
        Called in the backward pass as soon as a weight's gradient is complete, with the operands of
        :func:`unit_operands`.
    units : int
        Number of gradient units that the batch is cut into for that; contiguous and equal.
    on_norm : callable (norm name, gradient_BW), optional
        The same for the weights of norms, a sample.
    on_signal : callable (layer name, product_BPD, fan_in, whether positions are tokens), optional
        Called in the backward pass with output x its gradient.
    on_activation, on_output : callable (place name, values before the activation / of the layer), optional
        Called in the forward pass.
    on_layer_norm : callable (input of a LayerNorm), optional
    keep_features : bool
        Keep the tensors at the primary blocks in ``features``.
    copy_outputs : bool
        Hand on copies of the layers' outputs. Where what follows changes an output in place and the output is
        a view, as those of linear layers on tokens are, its gradient would never be seen.

    Attributes
    ----------
    order : list of (axis, place name)
        Places in the order of their first execution.
    anchors : list of tensors
        Leaves that the gradient of a loss has to be asked for, so that it reaches every watched layer and no
        earlier one: where no input of a layer needs a gradient, its output becomes a leaf.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        watched: Callable[[str, str], bool] = lambda axis, place: True,
        *,
        on_products: Callable | None = None,
        units: int = 1,
        on_norm: Callable | None = None,
        on_signal: Callable | None = None,
        on_activation: Callable | None = None,
        on_output: Callable | None = None,
        on_layer_norm: Callable | None = None,
        keep_features: bool = False,
        copy_outputs: bool = False,
    ):
        self.anatomy, self.watched, self.units = anatomy, watched, units
        self.on_products, self.on_norm, self.on_signal = on_products, on_norm, on_signal
        self.on_activation, self.on_output, self.on_layer_norm = on_activation, on_output, on_layer_norm
        self.keep_features, self.copy_outputs = keep_features, copy_outputs
        self.order: list[tuple[str, str]] = []
        self.anchors: list[torch.Tensor] = []
        self.features: dict[str, torch.Tensor] = {}
        self._names: dict[int, str] = {}  # of weights: a shared one is one layer
        self._calls: dict[str, _Calls] = {}
        self._uses: Counter = Counter()
        self._waiting: set[_Seen] = set()
        self._handles: list = []

    @property
    def unreached(self) -> bool:
        """Whether the gradient of some watched layer's output has not arrived."""
        return bool(self._waiting)

    def flush(self) -> None:
        """After the backward pass: complete weights of which one use was not reached."""
        for calls in self._calls.values():
            calls.flush()

    def __enter__(self):
        for name, module in self.anatomy.layers.items():
            self._hook(module, self._layer_hook(name))
        for name, module in self.anatomy.activations.items():
            # Before the module: one that works in place overwrites its input.
            self._handles.append(module.register_forward_pre_hook(self._activation_hook(name)))
        for name, module, side in self.anatomy.features:
            self._hook(module, self._feature_hook(name, side))
        for name, module in self.anatomy.norms.items():
            if self.on_norm is not None and module.weight is not None:
                self._hook(module, self._norm_hook(name))
            if self.on_layer_norm is not None and isinstance(module, nn.LayerNorm):
                self._hook(module, lambda module, args, output: self.on_layer_norm(args[0].detach()))
        return self

    def _hook(self, module: nn.Module, hook: Callable) -> None:
        self._handles.append(module.register_forward_hook(hook))

    def __exit__(self, *_):
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._calls.clear()
        self._waiting.clear()

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

    def _anchored(self, output: torch.Tensor) -> torch.Tensor:
        if output.requires_grad:
            return output
        anchor = output.detach().requires_grad_()
        self.anchors.append(anchor)
        return anchor.clone()  # what follows may work in place, which a leaf does not allow

    def _layer_hook(self, name: str):
        def hook(module, args, output):
            key = id(module.weight)
            first = key not in self._names
            place = self._names.setdefault(key, name)
            if first:
                self.order.append(("layer", place))
            if not self.watched("layer", place):
                return None
            if self.on_output is not None and first:
                self.on_output(place, output.detach())
            if self.on_products is None and self.on_signal is None:
                return None
            output = self._anchored(output)
            seen = _Seen(place, module, args[0], output, keep_output=self.on_signal is not None)
            if self.on_products is not None:
                weight = seen.parameters["weight"]
                self._calls.setdefault(place, _Calls(partial(self._emit_products, place, weight))).expected += 1
            self._waiting.add(seen)

            def receive(out_grad):
                if self.on_signal is not None:
                    self._signal(seen, out_grad)
                if self.on_products is not None:
                    self._products(seen, out_grad)
                seen.clear()
                self._waiting.discard(seen)

            output.register_hook(receive)
            return output.clone() if self.copy_outputs else output

        return hook

    def _signal(self, seen: "_Seen", out_grad: torch.Tensor) -> None:
        product, module = seen.output() * out_grad, seen.module
        if isinstance(module, nn.Linear):
            tokens = product.dim() > 2
            product = product.flatten(1, -2) if tokens else product.unsqueeze(1)
        else:
            tokens, product = False, product.flatten(2).transpose(1, 2)
        self.on_signal(seen.name, product, module.weight[0].numel(), tokens)

    def _products(self, seen: "_Seen", out_grad: torch.Tensor) -> None:
        inputs = seen.inputs()
        if len(inputs) % self.units:
            raise LibranasError(
                f"Layer {seen.name} got an input with {len(inputs)} rows, which the {self.units} units of the "
                "batch do not divide: its rows are not samples, so it has no gradient a sample.",
                "Score this network with unit='microbatch', or leave out proxies that need variances.",
            )
        self._calls[seen.name].receive(unit_operands(seen.module, inputs, out_grad, self.units))

    def _emit_products(self, name: str, weight: torch.Tensor, received: list) -> None:
        a, d = (torch.cat(x, dim=2) if len(x) > 1 else x[0] for x in zip(*received, strict=True))
        self.on_products(name, weight, a, d)

    def _norm_hook(self, name: str):
        def hook(module, args, output):
            key = f"norm {id(module.weight)}"
            calls = self._calls.setdefault(key, _Calls(lambda received: self.on_norm(name, sum(received))))
            calls.expected += 1
            normal, output = normalised(module, args[0].detach()), self._anchored(output)
            last = isinstance(module, (nn.LayerNorm, nn.RMSNorm))  # else channels come second

            def receive(out_grad):
                product, size = normal * out_grad, module.weight.numel()
                if len(product) % self.units:
                    raise LibranasError(f"Norm {name} got {len(product)} rows for {self.units} images.")
                pixels = 1 if last else math.prod(product.shape[2:])
                calls.receive(product.reshape(self.units, -1, size, pixels).sum((1, 3)))

            output.register_hook(receive)
            return output

        return hook

    def _use(self, axis: str, name: str) -> str:
        """The place of one more use of a module: one that is used twice is two places."""
        self._uses[axis, name] += 1
        count = self._uses[axis, name]
        place = name if count == 1 else f"{name}#{count}"
        self.order.append((axis, place))
        return place

    def _activation_hook(self, name: str):
        def hook(module, args):
            place = self._use("activation", name)
            if self.on_activation is not None and self.watched("activation", place):
                self.on_activation(place, args[0].detach())

        return hook

    def _feature_hook(self, name: str, side: str):
        def hook(module, args, output):
            place = self._use("feature", name)
            if self.keep_features:
                self.features[place] = args[0] if side == "input" else output

        return hook


class _Seen:
    """Input and output of a layer's use, held until the gradient of its output arrives."""

    def __init__(self, name, module, inputs, output, keep_output: bool):
        self.name, self.module = name, module
        #: As they are in this run, which need not be the module's own.
        self.parameters = dict(module.named_parameters(recurse=False))
        self._inputs, self._input_version = inputs.detach(), inputs._version
        self._output = output.detach() if keep_output else None
        self._output_version = output._version

    def inputs(self) -> torch.Tensor:
        if self._inputs._version != self._input_version:
            raise LibranasError(
                f"The input of layer {self.name} was changed in place after the layer used it.",
                "Make the operation that follows it out-of-place (inplace=False).",
            )
        return self._inputs

    def output(self) -> torch.Tensor:
        if self._output._version != self._output_version:  # in-place ReLU after it, for instance
            weight, bias = self.parameters["weight"], self.parameters.get("bias")
            if isinstance(self.module, nn.Linear):
                return F.linear(self.inputs(), weight, bias)
            return self.module._conv_forward(self.inputs(), weight, bias)
        return self._output

    def clear(self) -> None:
        """Free the tensors now; the hook that refers to them lives as long as the graph."""
        self._inputs = self._output = None


def choose_units(values: torch.Tensor, units: str | int, generator: torch.Generator) -> torch.Tensor:
    """The units that activation patterns are made of (option ``psi_units``), as (samples, units) values.

    Positions are tokens (images, tokens, channels) or pixels (images, channels, height, width); without
    positions all channels are chosen.
    """
    if units == "all" or values.dim() < 3:
        return values.flatten(1)
    x_SPD = positions_last_channels(values)
    if units == "cls":
        return x_SPD[:, 0]
    if units == "mean":
        return x_SPD.mean(1)
    chosen = torch.randperm(x_SPD.shape[1], generator=generator)[:units]
    return x_SPD[:, chosen.to(x_SPD.device)].flatten(1)


def positions_last_channels(x: torch.Tensor) -> torch.Tensor:
    """A feature as (images, positions, channels): tokens as they are, images flattened."""
    if x.dim() == 4:
        return x.flatten(2).transpose(1, 2)
    return x if x.dim() == 3 else x.unsqueeze(1)
