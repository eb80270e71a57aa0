"""Hooks on a network for one run, which cannot leak.

Legend: U units, G groups of a convolution, K positions of a unit, I in, O out, B images, P positions, D channels,
W entries of a norm's weight.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import contextmanager

import torch
from torch import nn

from libranas.core.scorecard import AXES, Axis
from libranas.zero_cost.anatomy import Anatomy
from libranas.zero_cost.taps import ActivationTap, FeatureTap, LayerTap, LayerUse, NormTap, WeightGradient


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
    """Put taps on a network for one run and take all of them off again; a context manager.

    Parameters
    ----------
    anatomy : Anatomy
    watched : callable (axis, place name) -> bool, optional
        Places that are looked at; default all. The order of execution is always recorded.
    on_products : callable (layer name, weight, a_UGKI, d_UGKO), optional
        Called in the backward pass as soon as a weight's gradient is complete, with the operands of
        :class:`~libranas.zero_cost.gradient_operands.LayerRule`.
    units : int
        Number of gradient units that the batch is cut into for that; contiguous and equal.
    on_norm : callable (norm name, gradient_UW), optional
        The same for the weights of norms.
    on_signal : callable (layer name, product_BPD, fan_in, whether positions are tokens), optional
        Called in the backward pass with output x its gradient.
    on_output, on_activation, on_feature : callable (place name, tensor), optional
        Called in the forward pass with the output of a layer, the input of an activation, and the tensor at a primary
        block (the only one with its graph).
    copy_outputs : bool
        Hand copies of the layers' outputs to the network. An output may be a view, as those of linear layers on tokens
        are. If the network changes a view in place, its gradient never arrives.

    Attributes
    ----------
    order : list of (axis, place name)
        Places in the order of their first execution.
    anchors : list of tensors
        Leaves to ask the gradient of a loss for. It then reaches every watched layer and no earlier one: where no
        input of a layer needs a gradient, its output becomes a leaf.
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
        taps = [(module, LayerTap(self, name)) for name, module in self.anatomy.layers.items()]
        taps += [(module, FeatureTap(self, name, side)) for name, module, side in self.anatomy.features]
        if self.on_norm is not None:
            norms = self.anatomy.norms.items()
            taps += [(module, NormTap(self, name)) for name, module in norms if module.weight is not None]
        self._handles = [module.register_forward_hook(tap) for module, tap in taps]
        for name, module in self.anatomy.activations.items():
            # Before the module: one that works in place overwrites its input.
            self._handles.append(module.register_forward_pre_hook(ActivationTap(self, name)))
        return self

    def __exit__(self, *_):
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._gradients.clear()
        self.waiting.clear()

    def backward(self, output: torch.Tensor, sources: list[torch.Tensor]) -> tuple:
        """Return the gradients of a scalar at `sources`, while the taps see those at the layers' outputs.

        Raises
        ------
        OutputLost
            If a layer's gradient did not arrive, unless outputs are copied already.
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

    # -- for the taps --

    def layer(self, weight: torch.Tensor, name: str) -> tuple[str, bool]:
        """Return the place of a layer's use, and whether it is the first one of its weight."""
        first = id(weight) not in self._names
        place = self._names.setdefault(id(weight), name)
        if first:
            self.order.append(("layer", place))
        return place, first

    def use(self, axis: str, name: str) -> str:
        """Return the place of one more use of a module: one that is used twice is two places."""
        self._uses[axis, name] += 1
        count = self._uses[axis, name]
        place = name if count == 1 else f"{name}#{count}"
        self.order.append((axis, place))
        return place

    def gradient(self, key: str, emit: Callable[[list], None]) -> WeightGradient:
        """Return the gradient of a weight that one more use will add to."""
        gradient = self._gradients.setdefault(key, WeightGradient(emit))
        gradient.expected += 1
        return gradient

    def anchored(self, output: torch.Tensor) -> torch.Tensor:
        """Return an output that a gradient reaches; see ``anchors``."""
        if output.requires_grad:
            return output
        anchor = output.detach().requires_grad_()
        self.anchors.append(anchor)
        return anchor.clone()  # what follows may work in place, which a leaf does not allow
