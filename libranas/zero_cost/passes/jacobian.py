"""The jacobian pass: gradients of the sum of the logits, at the images and at all weights.

Legend: B images, X pixels of an image, W entries of all weights or of a norm; operands have an image as a unit.
"""

from itertools import combinations

import torch

from libranas.zero_cost.anatomy import odd_norms
from libranas.zero_cost.captures import InputGradient, TangentKernel
from libranas.zero_cost.gradient_moments import Scratch, tiles
from libranas.zero_cost.hooks import Recorder
from libranas.zero_cost.passes.context import PassRun, key_of
from libranas.zero_cost.proxy import JACOBIAN


class Jacobian(PassRun):
    """Show the gradients at the images and the tangent kernel of the weights."""

    pass_ = JACOBIAN

    def run(self) -> None:
        context, wants = self.context, self.collected.wants
        tensors, inputs = context.tensors(JACOBIAN), context.batch(JACOBIAN)
        some, gradient_BX, kernel_BB = inputs[: context.options.ntk_images], None, None
        if not context.coupled and (odd := odd_norms(context.anatomy)):
            self.collected.refuse(f"no rule for the weight of norm {odd[0]}, which has a forward of its own", "kernel")
        if wants("kernel") and not context.coupled:
            kernel_BB, gradient_BX, classes = self._kernel(tensors, some)
        if wants("input_gradient"):
            if gradient_BX is None or len(some) < len(inputs):
                gradient_BX, classes = self._input_gradient(tensors, inputs)
            self.collected.give("", InputGradient(gradient_BX, context.targets, classes), "input_gradient")
        if wants("kernel"):
            kernel_BB = self._coupled_kernel(tensors, some) if kernel_BB is None else kernel_BB
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
                on_norm=on_norm,
                copy_outputs=context.copy_outputs,
            )
            x = inputs[rows].detach().clone().requires_grad_()
            with recorder:
                logits = context.logits(tensors, x)
                gradient_BX[rows] = recorder.backward(logits.sum(), [x])[0].flatten(1)
            kernel_BB[rows[:, None], rows] = part_BB
        return kernel_BB, gradient_BX, logits.shape[1]

    def _coupled_kernel(self, tensors, inputs: torch.Tensor) -> torch.Tensor:
        """Return the kernel with one backward pass for each image, whose logits depend on all images."""
        owners = {**self.context.anatomy.layers, **self.context.anatomy.norms}
        names = [key_of(n) for n, m in owners.items() if m.weight is not None]
        leaves = list({id(tensors[n]): tensors[n].requires_grad_() for n in names}.values())
        logits = self.context.logits(tensors, inputs)
        sizes = [leaf.numel() for leaf in leaves]
        gradient_BW = inputs.new_zeros(len(inputs), sum(sizes))
        for i in range(len(inputs)):
            found = torch.autograd.grad(logits[i].sum(), leaves, retain_graph=True, allow_unused=True)
            for row, gradient in zip(gradient_BW[i].split(sizes), found, strict=True):
                if gradient is not None:
                    row.copy_(gradient.flatten())
        return (gradient_BW @ gradient_BW.T).double()
