"""Taps: the hooks that show one run of a network at its layers, norms, activations and features.

Each tap belongs to a :class:`~libranas.zero_cost.hooks.Recorder`, which knows the order of execution and whom to call.
The gradient of a weight is handed on inside the backward hook, as soon as it is complete (see
:mod:`libranas.zero_cost.gradient_moments`). Memory is therefore the working set of one layer, never samples x
parameters.

Legend: B images, P positions, D channels; operands as in :mod:`libranas.zero_cost.gradient_operands`.
"""

import math
from collections.abc import Callable

import torch
from torch import nn

from libranas.core.errors import LibranasError
from libranas.zero_cost.gradient_operands import normalised, rule_of


class WeightGradient:
    """The gradient of one weight; a shared one has several uses, which are waited for."""

    def __init__(self, emit: Callable[[list], None]):
        self.emit, self.expected, self._received = emit, 0, []

    def receive(self, what) -> None:
        """Take what one use adds."""
        self._received.append(what)
        if len(self._received) == self.expected:
            self.hand_on()

    def hand_on(self) -> None:
        """Emit what has arrived; uses that the loss does not depend on add nothing."""
        received, self._received = self._received, []
        if received:
            self.emit(received)


class LayerTap:
    """Forward hook on a layer."""

    def __init__(self, recorder, name: str):
        self.recorder, self.name = recorder, name

    def __call__(self, module, args, output):
        recorder = self.recorder
        place, first = recorder.layer(module.weight, self.name)
        if not recorder.watched("layer", place):
            return None
        if recorder.on_output is not None and first:
            recorder.on_output(place, output.detach())
        if recorder.on_products is None and recorder.on_signal is None:
            return None
        output = recorder.anchored(output)
        output.register_hook(LayerUse(recorder, place, module, args[0], output).receive)
        return output.clone() if recorder.copy_outputs else output


class LayerUse:
    """Input and output of one use of a layer, held until the gradient of its output arrives."""

    def __init__(self, recorder, place: str, module: nn.Module, inputs: torch.Tensor, output: torch.Tensor):
        self.recorder, self.place, self.module, self.rule = recorder, place, module, rule_of(module)
        #: The tensors of this run, which need not be the module's own.
        self.parameters = dict(module.named_parameters(recurse=False))
        self._inputs, self._input_version = inputs.detach(), inputs._version
        self._output = output.detach() if recorder.on_signal is not None else None
        self._output_version = output._version
        self._gradient = None
        if recorder.on_products is not None:
            weight = self.parameters["weight"]
            # Not a method: a cycle of references would keep the run's tensors alive.
            self._gradient = recorder.gradient(place, lambda seen: recorder.on_products(place, weight, *_joined(seen)))
        recorder.waiting.add(self)

    def receive(self, out_grad: torch.Tensor) -> None:
        """Take the gradient at the output; the hook for it."""
        if self.recorder.on_signal is not None:
            product_BPD, tokens = self.rule.positions(self._intact_output() * out_grad)
            self.recorder.on_signal(self.place, product_BPD, self.module.weight[0].numel(), tokens)
        if self._gradient is not None:
            self._receive_products(out_grad)
        # Free the tensors now: the hook lives as long as the graph.
        self._inputs = self._output = None
        self.recorder.waiting.discard(self)

    def _receive_products(self, out_grad: torch.Tensor) -> None:
        inputs, units = self._intact_inputs(), self.recorder.units
        if len(inputs) % units:
            raise LibranasError(
                f"Layer {self.place} got an input with {len(inputs)} rows, which the {units} units of the "
                "batch do not divide: its rows are not samples, so it has no gradient a sample.",
                "Score this network with unit='microbatch', or leave out proxies that need variances.",
            )
        self._gradient.receive(self.rule.operands(self.module, inputs, out_grad, units))

    def _intact_inputs(self) -> torch.Tensor:
        if self._inputs._version != self._input_version:
            raise LibranasError(
                f"The input of layer {self.place} was changed in place after the layer used it.",
                "Make the operation that follows it out-of-place (inplace=False).",
            )
        return self._inputs

    def _intact_output(self) -> torch.Tensor:
        if self._output._version == self._output_version:
            return self._output
        # Changed in place, by a ReLU for instance.
        return self.rule.forward(
            self.module, self._intact_inputs(), self.parameters["weight"], self.parameters.get("bias")
        )


def _joined(received: list[tuple[torch.Tensor, torch.Tensor]]) -> list[torch.Tensor]:
    """Put the operands of several uses of a weight side by side, as more positions of each unit."""
    return [torch.cat(x, dim=2) if len(x) > 1 else x[0] for x in zip(*received, strict=True)]


class NormTap:
    """Forward hook on a norm, for the gradient of its weight."""

    def __init__(self, recorder, name: str):
        self.recorder, self.name = recorder, name

    def __call__(self, module, args, output):
        recorder, size = self.recorder, module.weight.numel()
        gradient = recorder.gradient(
            f"norm {id(module.weight)}", lambda received: recorder.on_norm(self.name, sum(received))
        )
        normal, output = normalised(module, args[0].detach()), recorder.anchored(output)
        channels_last = isinstance(module, (nn.LayerNorm, nn.RMSNorm))

        def receive(out_grad):
            product = normal * out_grad
            if len(product) % recorder.units:
                raise LibranasError(f"Norm {self.name} got {len(product)} rows for {recorder.units} images.")
            pixels = 1 if channels_last else math.prod(product.shape[2:])
            gradient.receive(product.reshape(recorder.units, -1, size, pixels).sum((1, 3)))

        output.register_hook(receive)
        return output


class ActivationTap:
    """Forward pre-hook on an activation."""

    def __init__(self, recorder, name: str):
        self.recorder, self.name = recorder, name

    def __call__(self, module, args):
        place = self.recorder.use("activation", self.name)
        if self.recorder.on_activation is not None and self.recorder.watched("activation", place):
            self.recorder.on_activation(place, args[0].detach())


class FeatureTap:
    """Forward hook on a primary block."""

    def __init__(self, recorder, name: str, side: str):
        self.recorder, self.name, self.side = recorder, name, side

    def __call__(self, module, args, output):
        place = self.recorder.use("feature", self.name)
        if self.recorder.on_feature is not None:
            self.recorder.on_feature(place, args[0] if self.side == "input" else output)
