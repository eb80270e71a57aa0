"""Hooks on a network for one run, which cannot leak.

Legend: U units, B images, P positions, D channels, W entries of a norm's weight; operands as in
:mod:`libranas.zero_cost.gradient_operands`.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

from libranas.core.errors import LibranasError
from libranas.core.scorecard import AXES, Axis
from libranas.zero_cost.anatomy import Anatomy
from libranas.zero_cost.gradient_operands import normalised
from libranas.zero_cost.layer_use import LayerUse, WeightGradient


class OutputLost(Exception):
    """A layer's output was changed in place in a way that hides its gradient: repeat with copies of outputs."""


@contextmanager
def hooked(hooks: Iterable[tuple[nn.Module, Callable]]):
    """Keep forward hooks on modules for a while."""
    handles = [module.register_forward_hook(hook) for module, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Recorder:
    """Put hooks on a network for one run and take all of them off again; a context manager.

    Parameters
    ----------
    anatomy : Anatomy
    watched : callable (axis, place name) -> bool, optional
        Places that are looked at; default all. The order of execution is always recorded.
    on_products : callable (layer name, weight, a_UGKI, d_UGKO), optional
        Called in the backward pass as soon as a weight's gradient is complete, with the operands of its
        :class:`~libranas.zero_cost.gradient_operands.LayerRule`.
    units : int
        Number of contiguous and equal gradient units that the batch is cut into for that.
    on_norm : callable (norm name, gradient_UW), optional
        The same for the weights of norms.
    on_signal : callable (layer name, product_BPD, fan_in, whether positions are tokens), optional
        Called in the backward pass with output x its gradient.
    on_output, on_activation, on_feature : callable (place name, tensor), optional
        Called in the forward pass with the output of a layer, the input of an activation, and the tensor at a primary
        block (the only one with its graph).
    copy_outputs : bool
        Hand copies of the layers' outputs to the network: of a view that it changes in place no gradient arrives.

    Attributes
    ----------
    order : list of (axis, place name)
        Places in the order of their first execution.
    anchors : list of tensors
        Leaves to ask the gradient of a loss for: it then reaches every watched layer and no earlier one.
    waiting : set of the layers' uses whose gradient has not arrived
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
        on_output: Callable | None = None,
        on_activation: Callable | None = None,
        on_feature: Callable | None = None,
        copy_outputs: bool = False,
    ):
        self.anatomy, self.watched, self.units = anatomy, watched, units
        self.on_products, self.on_norm, self.on_signal = on_products, on_norm, on_signal
        self.on_output, self.on_activation, self.on_feature = on_output, on_activation, on_feature
        self.copy_outputs = copy_outputs
        self.order: list[tuple[str, str]] = []
        self.anchors: list[torch.Tensor] = []
        self.waiting: set[LayerUse] = set()
        self._names: dict[int, str] = {}  # of weights: a shared one is one layer
        self._gradients: dict[str, WeightGradient] = {}
        self._uses: Counter = Counter()
        self._handles: list = []

    def __enter__(self):
        hooks = [(module, partial(self._see_layer, name)) for name, module in self.anatomy.layers.items()]
        hooks += [(module, partial(self._see_feature, name, side)) for name, module, side in self.anatomy.features]
        if self.on_norm is not None:
            norms = self.anatomy.norms.items()
            hooks += [(module, partial(self._see_norm, name)) for name, module in norms if module.weight is not None]
        self._handles = [module.register_forward_hook(hook) for module, hook in hooks]
        for name, module in self.anatomy.activations.items():
            # Before the module: one that works in place overwrites its input.
            self._handles.append(module.register_forward_pre_hook(partial(self._see_activation, name)))
        return self

    def __exit__(self, *_):
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._gradients.clear()
        self.waiting.clear()

    def backward(self, output: torch.Tensor, sources: list[torch.Tensor]) -> tuple:
        """Return the gradients of a scalar at `sources`, while the hooks see those at the layers' outputs.

        OutputLost if a layer's gradient did not arrive, unless outputs are copied already.
        """
        if not sources:
            return ()
        found = torch.autograd.grad(output, sources, allow_unused=True)
        if self.waiting and not self.copy_outputs:
            raise OutputLost
        for gradient in self._gradients.values():
            gradient.hand_on()  # weights of which the loss does not depend on every use
        return found

    def axes(self) -> dict[str, Axis]:
        """Return the places of each axis, with the depth of the last weight layer before them."""
        total = max(1, sum(axis == "layer" for axis, _ in self.order))
        names: dict[str, list[str]] = {axis: [] for axis in AXES}
        depths: dict[str, list[float]] = {axis: [] for axis in AXES}
        layers = 0
        for axis, name in self.order:
            layers += axis == "layer"
            names[axis].append(name)
            depths[axis].append(max(0, layers - 1) / total)
        return {axis: Axis(tuple(names[axis]), tuple(depths[axis])) for axis in names}

    def gradient(self, key: str, emit: Callable[[list], None]) -> WeightGradient:
        """Return the gradient of a weight that one more use will add to."""
        gradient = self._gradients.setdefault(key, WeightGradient(emit))
        gradient.expected += 1
        return gradient

    def _anchored(self, output: torch.Tensor) -> torch.Tensor:
        """Return an output that a gradient reaches; see ``anchors``."""
        if output.requires_grad:
            return output
        anchor = output.detach().requires_grad_()
        self.anchors.append(anchor)
        return anchor.clone()  # what follows may work in place, which a leaf does not allow

    def _use(self, axis: str, name: str) -> str:
        """Return the place of one more use of a module: one that is used twice is two places."""
        self._uses[axis, name] += 1
        count = self._uses[axis, name]
        place = name if count == 1 else f"{name}#{count}"
        self.order.append((axis, place))
        return place

    # -- the hooks --

    def _see_layer(self, name: str, module, args, output):
        first = id(module.weight) not in self._names
        place = self._names.setdefault(id(module.weight), name)
        if first:
            self.order.append(("layer", place))
        if not self.watched("layer", place):
            return None
        if self.on_output is not None and first:
            self.on_output(place, output.detach())
        if self.on_products is None and self.on_signal is None:
            return None
        output = self._anchored(output)
        output.register_hook(LayerUse(self, place, module, args[0], output).receive)
        return output.clone() if self.copy_outputs else output

    def _see_norm(self, name: str, module, args, output):
        size, units = module.weight.numel(), self.units
        gradient = self.gradient(f"norm {id(module.weight)}", lambda received: self.on_norm(name, sum(received)))
        normal, output = normalised(module, args[0].detach()), self._anchored(output)

        def receive(out_grad):
            product = normal * out_grad
            if len(product) % units:
                raise LibranasError(f"Norm {name} got {len(product)} rows for {units} images.")
            channels_last = isinstance(module, (nn.LayerNorm, nn.RMSNorm))
            pixels = 1 if channels_last else math.prod(product.shape[2:])
            gradient.receive(product.reshape(units, -1, size, pixels).sum((1, 3)))

        output.register_hook(receive)
        return output

    def _see_activation(self, name: str, module, args) -> None:
        place = self._use("activation", name)
        if self.on_activation is not None and self.watched("activation", place):
            self.on_activation(place, args[0].detach())

    def _see_feature(self, name: str, side: str, module, args, output) -> None:
        place = self._use("feature", name)
        if self.on_feature is not None:
            self.on_feature(place, args[0] if side == "input" else output)
