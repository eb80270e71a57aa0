"""The synaptic passes: the gradient of the sum of the logits of an image of ones, all weights positive."""

from typing import ClassVar

import torch
from torch import nn

from libranas.zero_cost.anatomy import BATCH_NORMS, kind_of
from libranas.zero_cost.captures import Saliency
from libranas.zero_cost.gradient_operands import as_matrix
from libranas.zero_cost.passes.context import PassRun
from libranas.zero_cost.proxy import SYNAPTIC, SYNAPTIC_BARE


class Synaptic(PassRun):
    """Run with batch normalisation as the identity."""

    pass_ = SYNAPTIC
    need: ClassVar[str] = "saliency"
    identity: ClassVar[tuple[type[nn.Module], ...]] = BATCH_NORMS

    def run(self) -> None:
        context, tensors = self.context, self.context.tensors(self.pass_)
        leaves = context.leaves(tensors)
        if not leaves:
            return
        with context.mode(train=False, identity=self.identity):
            logits = context.logits(tensors, context.batch(self.pass_))
        gradients = torch.autograd.grad(logits.sum(), list(leaves.values()), allow_unused=True)
        for (name, weight), gradient in zip(leaves.items(), gradients, strict=True):
            if gradient is not None:
                saliency = Saliency(as_matrix(weight.detach()), as_matrix(gradient), kind_of(name, weight))
                self.collected.give(name, saliency, self.need)


class SynapticBare(Synaptic):
    """Run with layer normalisation as the identity too."""

    pass_ = SYNAPTIC_BARE
    need = "bare_saliency"
    identity = (*BATCH_NORMS, nn.LayerNorm)
