"""The jacobian pass: gradients of the sum of the logits, at the images and at all weights.

Legend: B images, X pixels of an image, W entries of all weights or of a norm; operands have an image as a unit.
"""

from collections.abc import Iterator
from itertools import combinations

import torch

from libranas.zero_cost.captures import InputGradient, TangentKernel
from libranas.zero_cost.gradient_moments import Scratch, tiles
from libranas.zero_cost.hooks import Recorder
from libranas.zero_cost.parameters import kernel_weights
from libranas.zero_cost.passes.context import PassRun
from libranas.zero_cost.proxy import JACOBIAN

#: Elements of the gradients of all images that are held at once.
ELEMENTS = 2**28


class Jacobian(PassRun):
    """Show the gradients at the images and the tangent kernel of the weights."""

    pass_ = JACOBIAN

    def run(self) -> None:
        context, wants = self.context, self.collected.wants
        tensors, inputs = context.tensors(JACOBIAN), context.batch(JACOBIAN)
        some, gradient_BX, kernel_BB = inputs[: context.options.ntk_images], None, None
        if wants("kernel") and not context.coupled and context.kernel_by_rule:
            kernel_BB, gradient_BX, classes = self._kernel(tensors, some)
        if wants("input_gradient"):
            if gradient_BX is None or len(some) < len(inputs):
                gradient_BX, classes = self._input_gradient(tensors, inputs)
            self.collected.give("", InputGradient(gradient_BX, context.targets, classes), "input_gradient")
        if wants("kernel"):
            kernel_BB = self._kernel_by_autograd(tensors, some) if kernel_BB is None else kernel_BB
            self.collected.give("", TangentKernel(kernel_BB), "kernel")

    def _input_gradient(self, tensors, inputs: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Return the gradients at the images and the number of logits."""
        rows = []
        for part in self.context.slices(len(inputs)):
            x = inputs[part].detach().clone().requires_grad_()
            logits = self.context.logits(tensors, x)
            rows.append(torch.autograd.grad(logits.sum(), x)[0].flatten(1))
        return torch.cat(rows), logits.shape[1]

    def _kernel(self, tensors, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Return the inner products of the images' gradients, made a layer at a time and from pairs of parts.

        The gradients at the images and the number of logits come with it.
        """
        context, size, scratch = self.context, len(inputs), Scratch()
        kernel_BB = torch.zeros(size, size, dtype=torch.float64, device=inputs.device)
        gradient_BX = torch.zeros_like(inputs).flatten(1)
        blocks = list(context.slices(size, 2 * context.parts)) if context.parts > 1 else [slice(0, size)]
        pairs = combinations(blocks, 2) if len(blocks) > 1 else [blocks]
        for pair in pairs:
            rows = torch.cat([torch.arange(block.start, block.stop) for block in pair]).to(inputs.device)
            part_BB = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=inputs.device)

            def on_norm(name, gradient_BW, part_BB=part_BB):
                part_BB += (gradient_BW @ gradient_BW.T).double()

            def on_products(name, weight, a_BGKI, d_BGKO, part_BB=part_BB):
                for _, g_BX in tiles(a_BGKI, d_BGKO, scratch):
                    part_BB.add_((g_BX @ g_BX.T).double())

            # Every weight counts, also outside of a window.
            recorder = Recorder(
                context.anatomy,
                on_products=on_products,
                units=len(rows),
                images=len(rows),
                rows=context.rows,
                on_norm=on_norm,
                copy_outputs=context.copy_outputs,
            )
            x = inputs[rows].detach().clone().requires_grad_()
            with recorder:
                logits = context.logits(tensors, x)
                # Some layers see no image: no path from the logits to the images leads through them.
                gradient_BX[rows] = recorder.backward(logits.sum(), [x, *recorder.anchors])[0].flatten(1)
            kernel_BB[rows[:, None], rows] = part_BB
        return kernel_BB, gradient_BX, logits.shape[1]

    def _kernel_by_autograd(self, tensors, inputs: torch.Tensor) -> torch.Tensor:
        """Return the kernel with one backward pass for each image, alone unless its logits depend on all images."""
        context, size = self.context, len(inputs)
        leaves = [weight.requires_grad_() for weight in kernel_weights(context.model, tensors, context.layers())]
        together = context.logits(tensors, inputs) if context.coupled else None
        kernel_BB = torch.zeros(size, size, dtype=torch.float64, device=inputs.device)
        for some in [leaves] if context.coupled else _groups(leaves, ELEMENTS // size):
            sizes = [leaf.numel() for leaf in some]
            gradient_BW = inputs.new_zeros(size, sum(sizes))
            for i in range(size):
                logits = context.logits(tensors, inputs[i : i + 1])[0] if together is None else together[i]
                found = torch.autograd.grad(logits.sum(), some, retain_graph=together is not None, allow_unused=True)
                for row, gradient in zip(gradient_BW[i].split(sizes), found, strict=True):
                    if gradient is not None:
                        row.copy_(gradient.flatten())
            kernel_BB += (gradient_BW @ gradient_BW.T).double()
        return kernel_BB


def _groups(weights: list[torch.Tensor], most: int) -> Iterator[list[torch.Tensor]]:
    """Cut a list of weights into runs of at most `most` elements, or of one weight."""
    group: list[torch.Tensor] = []
    for weight in weights:
        if group and sum(w.numel() for w in group) + weight.numel() > most:
            yield group
            group = []
        group.append(weight)
    yield group
