"""The readout pass: what the last layer of the network sees of more images, by a run forwards.

Legend: B images, P positions, D channels.
"""

import torch
from torch import nn

from libranas.zero_cost.captures import Representation
from libranas.zero_cost.hooks import hooked
from libranas.zero_cost.passes.context import PassRun
from libranas.zero_cost.proxy import READOUT


class Readout(PassRun):
    """Show the input of the last layer, the mean over its positions."""

    pass_ = READOUT

    def run(self) -> None:
        context, (_, targets_B) = self.context, self.context.readout
        tensors, inputs = context.tensors(READOUT), context.batch(READOUT)
        if not context.axes:
            context.dry_run()
        last = context.layers()[-1]
        module = context.anatomy.layers.get(last)
        seen: list[torch.Tensor] = []
        rows: list[torch.Tensor] = []
        # Parts as large as the batch: batch normalisation sees as many images, and memory holds them.
        parts = context.parts * -(-len(inputs) // len(context.inputs))
        with torch.no_grad(), hooked([(module, lambda _, args, __: seen.append(args[0]))] if module else []):
            for part in context.slices(len(inputs), parts):
                context.logits(tensors, inputs[part])
                if not seen or len(seen[-1]) != part.stop - part.start:
                    self.collected.refuse(f"what the last layer {last} sees is not one row an image", "representation")
                    return
                rows.append(_pooled(seen[-1], isinstance(module, nn.Conv2d)))  # of several uses the last
                seen.clear()
        self.collected.give("", Representation(torch.cat(rows), targets_B), "representation")


def _pooled(input_B: torch.Tensor, convolution: bool) -> torch.Tensor:
    """Return the mean over positions, (B, D): of (B, D, height, width) for a convolution, else of (B, ..., D)."""
    rows_BPD = input_B.flatten(2).mT if convolution else input_B.reshape(len(input_B), -1, input_B.shape[-1])
    return rows_BPD.mean(1)
