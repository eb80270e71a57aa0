"""One use of a layer, and the gradient of a weight that its uses add up to.

A gradient is handed on as soon as it is complete, in the backward hook of its last use: memory is the working set of
one layer, never samples x parameters. Legend and operands as in :mod:`libranas.zero_cost.gradient_operands`.
"""

from collections.abc import Callable

import torch
from torch import nn

from libranas.core.errors import LibranasError
from libranas.zero_cost.gradient_operands import rule_of


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


class LayerUse:
    """Input and output of one use of a layer, held until the gradient of its output arrives."""

    def __init__(self, recorder, place: str, module: nn.Module, inputs: torch.Tensor, output: torch.Tensor):
        self.recorder, self.place, self.module, self.rule = recorder, place, module, rule_of(module)
        #: The tensors of this run, which need not be the module's own.
        self.parameters = dict(module._parameters)
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
        if not self.recorder.listens:
            return
        if self.recorder.on_signal is not None:
            product_BPD, tokens = self.rule.positions(self._intact_output() * out_grad)
            self.recorder.on_signal(self.place, product_BPD, self.module.weight[0].numel(), tokens)
        if self._gradient is not None:
            inputs, units = self._intact_inputs(), self.recorder.units
            self.recorder.check_rows(self.place, len(inputs))
            self._gradient.receive(self.rule.operands(self.module, inputs, out_grad, units))
        # Free the tensors now: the hook lives as long as the graph.
        self._inputs = self._output = None
        self.recorder.waiting.discard(self)

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
