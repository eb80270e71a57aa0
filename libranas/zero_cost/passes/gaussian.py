"""The gaussian pass: a network whose weights are drawn anew from N(0, 1), on noise that is perturbed a little."""

import torch
from torch import nn

from libranas.zero_cost.captures import Perturbation
from libranas.zero_cost.hooks import hooked
from libranas.zero_cost.parameters import key_of, weight_of
from libranas.zero_cost.passes.context import PassRun
from libranas.zero_cost.proxy import GAUSSIAN

#: Size of Zen's perturbation.
ZEN_ALPHA = 1e-2


class Gaussian(PassRun):
    """Measure how far the last feature map moves, once for each draw of weights and noise."""

    pass_ = GAUSSIAN

    def run(self) -> None:
        point = self._before_pooling()
        if point is not None:
            for repeat in range(self.context.options.zen_repeats):
                self.collected.give(str(repeat), self._perturbed(*point, *self.draw(repeat)), "perturbation")

    def draw(self, repeat: int) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
        """Return tensors, images and their perturbation: layers' weights from N(0, 1), biases 0, norms 1 and 0."""
        context, anatomy = self.context, self.context.anatomy
        tensors = context.tensors(GAUSSIAN)
        generator, drawn = context.generator("zen", str(repeat)), {}
        for name, module in {**anatomy.layers, **anatomy.norms}.items():
            for key, value in module.named_parameters(recurse=False):
                old = tensors[key_of(name, key)]
                if id(old) not in drawn and name in anatomy.layers and key == "weight":
                    drawn[id(old)] = torch.randn(value.shape, generator=generator).to(old)
                elif id(old) not in drawn:
                    drawn[id(old)] = torch.full_like(old, float(key == "weight"))
        for place in context.leaves(tensors, everywhere=True):  # those that are no module's, too
            old = weight_of(tensors, place)
            if id(old) not in drawn:
                drawn[id(old)] = torch.randn(old.shape, generator=generator).to(old)
        tensors = {name: drawn.get(id(tensor), tensor) for name, tensor in tensors.items()}
        x, epsilon = (context.noise_images("zen", what, str(repeat)) for what in ("x", "epsilon"))
        return tensors, x, epsilon

    def _before_pooling(self) -> tuple[list[nn.Module], str] | None:
        """Return modules and a side: the last module to run has the last feature map as its input or output."""
        if self.context.anatomy.features:
            _, module, side = self.context.anatomy.features[-1]
            return [module], side
        pools = [m for m in self.context.model.modules() if isinstance(m, (nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool1d))]
        return (pools, "input") if pools else None

    def _perturbed(self, modules: list[nn.Module], side: str, tensors, x, epsilon) -> Perturbation:
        """Run one draw and its perturbation through the network."""
        context = self.context
        difference = 0.0
        seen: list[torch.Tensor] = []

        def keep(module, args, output):
            seen.append((args[0] if side == "input" else output).clone())

        with torch.no_grad(), hooked((module, keep) for module in modules):
            for part in context.slices(len(x)):
                context.logits(tensors, x[part])
                before = seen[-1]  # of several poolings the one that runs last
                context.logits(tensors, x[part] + ZEN_ALPHA * epsilon[part])
                difference += (seen[-1] - before).abs().sum(dtype=torch.float64).item()
                seen.clear()
        variances = tuple(
            tensors[key_of(name, "running_var")].double().mean().item()
            for name, m in context.anatomy.batch_norms.items()
            if m.running_var is not None
        )
        return Perturbation(difference / len(x), variances)
