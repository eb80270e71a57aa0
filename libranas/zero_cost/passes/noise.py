"""The noise pass: primary blocks on N(0, 1) images, and every module's output for one of them.

Legend: D channels, R images x positions.
"""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from libranas.core.errors import LibranasError
from libranas.core.random import random_words
from libranas.zero_cost.anatomy import ACTIVATIONS, NORMS
from libranas.zero_cost.captures import Feature, Maps, Vjp
from libranas.zero_cost.gradient_moments import Scatter
from libranas.zero_cost.gradient_operands import is_layer
from libranas.zero_cost.hooks import Recorder, hooked
from libranas.zero_cost.passes.context import PassRun
from libranas.zero_cost.proxy import NOISE


@dataclass
class _Step:
    """One step of the backward signal, summed over the parts of the batch."""

    rows: int = 0
    product_DD: torch.Tensor | float = 0.0
    same: torch.Tensor | bool = True


class Noise(PassRun):
    """Show covariances at the primary blocks, the backward signal between them, and feature maps."""

    pass_ = NOISE

    def run(self) -> None:
        context, wants = self.context, self.collected.wants
        tensors, inputs = context.tensors(NOISE), context.batch(NOISE)
        if wants("maps"):
            self._maps(tensors, inputs[:1])
        if not (wants("feature", "vjp") and context.anatomy.features):
            return
        covariances: dict[str, Scatter] = {}
        steps: dict[str, _Step] = {}
        for part in context.slices(len(inputs)):
            x = inputs[part].detach().clone().requires_grad_(wants("vjp"))
            features: dict[str, torch.Tensor] = {}
            recorder = Recorder(context.anatomy, on_feature=features.__setitem__)
            with recorder, torch.set_grad_enabled(wants("vjp")):
                context.logits(tensors, x)
            if wants("feature"):
                self._add_covariances(covariances, features)
            if wants("vjp"):
                self._add_steps(steps, features, part, len(inputs))
            features.clear()  # and with them this part's graph, before the next part's
        for name, running in covariances.items():
            self.collected.give(name, Feature(running.m2 / running.units), "feature")
        for name, step in steps.items():
            self.collected.give(name, Vjp(step.product_DD / step.rows, step.same), "vjp")

    def random_signs(self, name: str, like: torch.Tensor, images: int | None = None) -> torch.Tensor:
        """Return random signs, int8, for a batch of `images` outputs like those at a primary block."""
        size = torch.Size((images or len(like), *like.shape[1:]))
        packed = _random_bytes(-(-size.numel() // 64), self.context.seed, name, like.device)
        bits = (packed[:, None] >> torch.arange(8, device=like.device, dtype=torch.uint8)) & 1
        return bits.view(torch.int8).flatten()[: size.numel()].view(size) * 2 - 1

    def _add_covariances(self, covariances: dict[str, Scatter], features: dict[str, torch.Tensor]) -> None:
        """Add one part of the batch to the covariance of the channels at each block."""
        for name, feature in features.items():
            rows_RD = positions_last_channels(feature.detach()).flatten(0, 1)
            middle_D = rows_RD.mean(0, dtype=torch.float64)
            rows_RD = rows_RD - middle_D.to(rows_RD.dtype)
            covariances.setdefault(name, Scatter()).merge(len(rows_RD), middle_D, (rows_RD.T @ rows_RD).double())

    def _add_steps(self, steps: dict[str, _Step], features: dict[str, torch.Tensor], part: slice, images: int) -> None:
        """Send random signs from the output of each block to its input, for one part of the batch."""
        names, outputs = list(features), list(features.values())
        for i in range(1, len(names)):
            signs = self.random_signs(names[i], outputs[i], images)[part].to(outputs[i])
            (g_in,) = torch.autograd.grad(outputs[i], outputs[i - 1], signs, retain_graph=True, allow_unused=True)
            if g_in is None:
                self.collected.refuse(f"block {names[i]} does not depend on {names[i - 1]}", "vjp")
                return
            if signs.dim() == 4 and any(a % b for a, b in zip(g_in.shape[2:], signs.shape[2:], strict=True)):
                sizes = f"{tuple(g_in.shape[2:])} to {tuple(signs.shape[2:])} pixels"
                reason = f"the block before {names[i]} shrinks {sizes}, not by a whole factor"
                self.collected.refuse(reason, "vjp")
                return
            if signs.dim() == 3 and g_in.shape[1] != signs.shape[1]:  # tokens were pooled: no pairs of positions
                steps[names[i]] = _Step(1, signs.new_zeros(1, 1).double())
                continue
            g_out_RD, g_in_RD = (t.flatten(0, 1) for t in _aligned(signs, g_in))
            step = steps.setdefault(names[i], _Step())
            step.rows += len(g_out_RD)
            step.product_DD = step.product_DD + (g_in_RD.T @ g_out_RD).double()
            step.same &= g_in_RD.shape == g_out_RD.shape and (g_in_RD == g_out_RD).all()

    def _maps(self, tensors: dict[str, torch.Tensor], image: torch.Tensor) -> None:
        """Give every module's output for one image."""
        context, maps, uses = self.context, {}, Counter()
        every = context.options.meco_modules == "all"

        def keep(name):
            def hook(module, args, output):
                output = output[0] if isinstance(output, tuple) else output
                if torch.is_tensor(output) and output.dim() > 2:
                    uses[name] += 1  # a module that is used twice has two maps
                    # A copy: what follows may work in place.
                    maps[f"{name}#{uses[name]}"] = _of_one_image(output.detach()).flatten(1).clone()

            return hook

        hooks = [
            (module, keep(name))
            for name, module in context.model.named_modules()
            if every or is_layer(module) or isinstance(module, (*NORMS, *ACTIVATIONS))
        ]
        try:
            with hooked(hooks), torch.no_grad():
                context.logits(tensors, image)
        except LibranasError as error:
            self.collected.refuse(error.what, "maps")
            return
        if maps:
            self.collected.give("", Maps(maps), "maps")


def _of_one_image(output: torch.Tensor) -> torch.Tensor:
    """Return an output for one image without the dimension of the batch; windows that are rows stay rows."""
    batch = next((i for i, size in enumerate(output.shape) if size == 1), None)
    return output if batch is None else output.select(batch, 0)


@lru_cache(maxsize=128)  # equal for all networks: places of one network, eight signs a byte
def _random_bytes(words: int, seed: int, name: str, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(random_words(words, seed, "signs", name).view(np.uint8)).to(device)


def _aligned(g_out: torch.Tensor, g_in: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both as (images, positions, channels).

    Where a block halves the resolution, the pixels of the finer side are folded into its channels.
    """
    if g_out.dim() == 4 and g_in.shape[-2:] != g_out.shape[-2:]:
        g_in = F.pixel_unshuffle(g_in, g_in.shape[-1] // g_out.shape[-1])
    return positions_last_channels(g_out), positions_last_channels(g_in)


def positions_last_channels(x: torch.Tensor) -> torch.Tensor:
    """Return a feature as (images, positions, channels): tokens as they are, images flattened."""
    if x.dim() == 4:
        return x.flatten(2).transpose(1, 2)
    return x if x.dim() == 3 else x.unsqueeze(1)
