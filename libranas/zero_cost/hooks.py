"""Hooks on a network for one run, which cannot leak.

Legend: U units, B images, P positions, D channels, W entries of a norm's weight; operands as in
:mod:`libranas.zero_cost.gradient_operands`.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

from libranas.core.scorecard import AXES, Axis
from libranas.zero_cost.anatomy import Anatomy
from libranas.zero_cost.gradient_operands import norm_gradient, normalised
from libranas.zero_cost.layer_use import LayerUse, WeightGradient
from libranas.zero_cost.parameters import Parameter
from libranas.zero_cost.weight_uses import WeightUses


class OutputLost(Exception):
    """A layer's output was changed in place in a way that hides its gradient: repeat with copies of outputs."""


class RowsDiffer(Exception):
    """A layer has other rows for an image than it had for two images: repeat with single images."""


@contextmanager
def hooked(hooks: Iterable[tuple[nn.Module, Callable]]):
    """Keep forward hooks on modules for a while."""
    handles = [module.register_forward_hook(hook) for module, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def switched(model: nn.Module, value: bool, *flags: str):
    """Set flags of the modules that have them for a while."""
    changed = [(m, flag) for m in model.modules() for flag in flags if getattr(m, flag, None) is (not value)]
    for module, flag in changed:
        setattr(module, flag, value)
    try:
        yield
    finally:
        for module, flag in changed:
            setattr(module, flag, not value)


def contiguous_gradient(module: nn.Module, args: tuple, output: torch.Tensor) -> None:
    """Work around torch 2.14: the gradient through a batch norm is wrong for one image and some strides, on a CPU."""
    if output.requires_grad:
        output.register_hook(torch.Tensor.contiguous)


def no_norm(module: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
    """Replace a norm's output by its input; timm has norms with an activation inside, which stays."""
    return getattr(module, "act", nn.Identity())(args[0])


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
    units, images : int
        Number of contiguous and equal gradient units that the batch is cut into for that, and of images.
    rows : layer -> numbers of rows that an image has at its uses, optional
        RowsDiffer if it has another one.
    on_norm : callable (norm name, gradient_UW), optional
        The same for the weights of norms.
    on_signal : callable (layer name, product_BPD, fan_in, whether positions are tokens), optional
        Called in the backward pass with output x its gradient.
    on_output, on_activation, on_feature : callable (place name, tensor), optional
        Called in the forward pass with the output of a layer, the input of an activation, and the tensor at a primary
        block (the only one with its graph).
    parameters, buffers : id of a tensor -> Parameter, and tensors, optional
        Of the run: weights that are used without their module, or that are no module's, are layers too.
    by_use : bool
        Show outputs and signals of layers where their weights are used (needs `parameters`), not at modules.
    copy_outputs : bool
        Hand copies of the layers' outputs to the network: of a view that it changes in place no gradient arrives.

    Attributes
    ----------
    order : list of (axis, place name)
        Places in the order of their first execution.
    anchors : list of tensors
        Leaves to ask the gradient of a loss for: it then reaches every watched layer and no earlier one.
    waiting : set of the layers' uses whose gradient has not arrived
    listens : bool
        Whether gradients at outputs are those of the loss; False during another backward pass through the same run.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        watched: Callable[[str, str], bool] = lambda axis, place: True,
        *,
        on_products: Callable | None = None,
        units: int = 1,
        images: int = 1,
        rows: dict[str, set[int]] | None = None,
        on_norm: Callable | None = None,
        on_signal: Callable | None = None,
        on_output: Callable | None = None,
        on_activation: Callable | None = None,
        on_feature: Callable | None = None,
        parameters: dict[int, Parameter] | None = None,
        buffers: Iterable[torch.Tensor] = (),
        by_use: bool = False,
        copy_outputs: bool = False,
    ):
        self.anatomy, self.watched = anatomy, watched
        self.units, self.images, self.rows = units, images, rows or {}
        self.on_products, self.on_norm, self.on_signal = on_products, on_norm, on_signal
        self.on_output, self.on_activation, self.on_feature = on_output, on_activation, on_feature
        self.by_use, self.copy_outputs = by_use, copy_outputs
        self.weight_uses = None if parameters is None else WeightUses(parameters, buffers, self._see_use)
        self.order: list[tuple[str, str]] = []
        self.anchors: list[torch.Tensor] = []
        self.waiting: set[LayerUse] = set()
        self.listens = True
        self._names: dict[int, str] = {}  # of weights: a shared one is one layer
        self._shown: set[int] = set()  # weights of which an output was seen
        self._called: set[int] = set()  # and those whose module ran
        self._gradients: dict[str, WeightGradient] = {}
        self._uses: Counter = Counter()
        self._handles: list = []

    def __enter__(self):
        layers = ((name, self.anatomy.layers[name]) for name in self.anatomy.layers if name in self.anatomy.plain)
        hooks = [(module, partial(self._see_layer, name)) for name, module in layers]
        hooks += [(module, partial(self._see_feature, name, side)) for name, module, side in self.anatomy.features]
        if self.on_norm is not None:
            norms = self.anatomy.norms.items()
            hooks += [(module, partial(self._see_norm, name)) for name, module in norms if module.weight is not None]
        self._handles = [module.register_forward_hook(hook) for module, hook in hooks]
        for name, module in self.anatomy.activations.items():
            # Before the module: one that works in place overwrites its input.
            self._handles.append(module.register_forward_pre_hook(partial(self._see_activation, name)))
        if self.weight_uses is not None:
            self.weight_uses.__enter__()
        return self

    def __exit__(self, *error):
        if self.weight_uses is not None:
            self.weight_uses.__exit__(*error)
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

    def at_inputs(self, output: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """Return the gradient of a scalar at `inputs`, unseen by the hooks; the graph stays for :meth:`backward`."""
        self.listens = False
        try:
            return torch.autograd.grad(output, inputs, retain_graph=True)[0]
        finally:
            self.listens = True

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

    def check_rows(self, place: str, rows: int) -> None:
        """Raise RowsDiffer for a number of rows that the trial has not seen for so many images."""
        if place in self.rows and rows not in {n * self.images for n in self.rows[place]}:
            raise RowsDiffer

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
        weight = id(module.weight)
        place = self._place(weight, name)
        if weight not in self._called:
            self._called.add(weight)
            if place != name:  # the module that runs first names a shared weight
                self.order[self.order.index(("layer", place))] = ("layer", name)
                place = self._names[weight] = name
        if self.by_use or not self.watched("layer", place):
            return None
        self._show(weight, place, output)
        if self.on_products is None and self.on_signal is None:
            return None
        output = self._anchored(output)
        output.register_hook(LayerUse(self, place, module, args[0], output).receive)
        return output.clone() if self.copy_outputs else output

    def _see_use(self, parameters: list[Parameter], weight: torch.Tensor | None, output: torch.Tensor | None):
        for parameter in parameters:
            self._place(id(parameter.tensor), parameter.place)
        if not self.by_use or len(parameters) > 1 or weight is None:
            return output
        (parameter,) = parameters
        key, channels = id(parameter.tensor), 1 - weight.dim()
        if not self.watched("layer", self._names[key]):
            return output
        if weight.numel() == parameter.tensor.numel():  # a part of it has only a part of the outputs
            self._show(key, self._names[key], output)
        if self.on_signal is None:
            return output
        output, tokens = self._anchored(output), channels == -1 and output.dim() > 2
        value = output.detach()

        def receive(out_grad):
            product = torch.atleast_2d((value * out_grad).movedim(channels, -1))
            product_BPD = product.flatten(1, -2) if product.dim() > 2 else product.unsqueeze(1)
            self.on_signal(self._names[key], product_BPD, parameter.tensor[0].numel(), tokens)

        output.register_hook(receive)
        return output.clone()  # what follows may work in place

    def _place(self, weight: int, name: str) -> str:
        """Return the layer that a weight is: at its first use a new one called `name`."""
        if weight not in self._names:
            self._names[weight] = name
            self.order.append(("layer", name))
        return self._names[weight]

    def _show(self, weight: int, place: str, output: torch.Tensor) -> None:
        if self.on_output is not None and weight not in self._shown:
            self._shown.add(weight)
            self.on_output(place, output.detach())

    def _see_norm(self, name: str, module, args, output):
        gradient = self.gradient(f"norm {id(module.weight)}", lambda received: self.on_norm(name, sum(received)))
        normal, output = normalised(module, args[0].detach()), self._anchored(output)

        def receive(out_grad):
            gradient.receive(norm_gradient(module, normal, out_grad, self.units))

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
