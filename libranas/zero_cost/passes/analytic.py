"""The analytic pass: what is known of a network before it is run on data."""

import torch

from libranas.zero_cost.captures import Network, Weight
from libranas.zero_cost.gradient_operands import as_matrix
from libranas.zero_cost.passes.context import PassRun, key_of
from libranas.zero_cost.proxy import ANALYTIC


class Analytic(PassRun):
    """Count parameters and multiply-accumulates, and show the weights."""

    pass_ = ANALYTIC

    def run(self) -> None:
        from torch.utils.flop_counter import FlopCounterMode  # loads triton, where that is installed

        context, tensors = self.context, self.context.tensors(ANALYTIC)
        # One image through train-mode batch norm would be refused.
        with context.mode(train=False, fused=False), torch.no_grad(), FlopCounterMode(display=False) as counter:
            context.logits(tensors, context.inputs[:1].to(next(iter(tensors.values())).dtype))
        trainable = sum(p.numel() for p in context.model.parameters() if p.requires_grad)
        self.collected.give("", Network(trainable, counter.get_total_flops() // 2), "network")
        if self.collected.wants("weight"):
            for name in context.watched()["layer"]:
                self.collected.give(name, Weight(as_matrix(tensors[key_of(name)])), "weight")
