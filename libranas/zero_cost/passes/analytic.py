"""The analytic pass: what is known of a network before it is run on data."""

import torch

from libranas.zero_cost.captures import Network, Weight
from libranas.zero_cost.gradient_operands import as_matrix
from libranas.zero_cost.parameters import weight_of
from libranas.zero_cost.passes.context import PassRun
from libranas.zero_cost.proxy import ANALYTIC


class Analytic(PassRun):
    """Count parameters and multiply-accumulates, and show the weights."""

    pass_ = ANALYTIC

    def run(self) -> None:
        context, tensors = self.context, self.context.tensors(ANALYTIC)
        image = context.inputs[:1].to(next(iter(tensors.values())).dtype)
        # One image through train-mode batch norm would be refused.
        with context.mode(train=False, fused=False), torch.no_grad():
            if context.macs is None:
                macs = self._counted(tensors, image)
            else:
                context.logits(tensors, image)
                macs = context.macs
        trainable = sum(p.numel() for p in context.model.parameters() if p.requires_grad)
        self.collected.give("", Network(trainable, macs), "network")
        if self.collected.wants("weight"):
            for name in context.watched()["layer"]:
                self.collected.give(name, Weight(as_matrix(weight_of(tensors, name))), "weight")

    def _counted(self, tensors: dict[str, torch.Tensor], image: torch.Tensor) -> int:
        """Count the multiply-accumulates of an image."""
        from torch.utils.flop_counter import FlopCounterMode  # loads torch._dynamo

        with FlopCounterMode(display=False) as counter:
            self.context.logits(tensors, image)
        return counter.get_total_flops() // 2
