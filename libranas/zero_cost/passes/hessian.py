"""The hessian pass: the Hessian of the loss times its gradient."""

import torch

from libranas.zero_cost.captures import Curvature
from libranas.zero_cost.gradient_operands import as_matrix
from libranas.zero_cost.passes.context import PassRun
from libranas.zero_cost.proxy import HESSIAN


class Hessian(PassRun):
    """Differentiate ``g * stop(g)`` of the loss's gradient g, over the weights of all layers."""

    pass_ = HESSIAN

    def run(self) -> None:
        context = self.context
        tensors, inputs = context.tensors(HESSIAN), context.batch(HESSIAN)
        leaves = context.leaves(tensors, everywhere=True)
        weights, parts = list(leaves.values()), list(context.slices(len(inputs)))
        products: list[torch.Tensor | None] = [None] * len(weights)
        with context.mode(context.train, fused=False):
            gradient = self._whole_gradient(tensors, inputs, weights, parts) if len(parts) > 1 else None
            for part in parts:
                loss = context.loss(context.logits(tensors, inputs[part]), context.targets[part])
                slope = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
                fixed = gradient or [None if g is None else g.detach() for g in slope]
                along = sum((g * v).sum() for g, v in zip(slope, fixed, strict=True) if g is not None)
                if not (torch.is_tensor(along) and along.requires_grad):
                    continue
                for i, product in enumerate(torch.autograd.grad(along, weights, allow_unused=True)):
                    if product is not None:
                        products[i] = product if products[i] is None else products[i] + product
        for (name, weight), product in zip(leaves.items(), products, strict=True):
            if product is not None and context.is_watched("layer", name):
                captured = Curvature(as_matrix(weight.detach()), as_matrix(product.detach()))
                self.collected.give(name, captured, "curvature")

    def _whole_gradient(self, tensors, inputs, weights: list[torch.Tensor], parts: list[slice]) -> list[torch.Tensor]:
        """Return the gradient of the whole batch's loss at the weights."""
        gradient = [torch.zeros_like(w) for w in weights]
        for part in parts:
            loss = self.context.loss(self.context.logits(tensors, inputs[part]), self.context.targets[part])
            for total, g in zip(gradient, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
                if g is not None:
                    total += g
        return gradient
