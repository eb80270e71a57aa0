"""Signs of activations and of layers' outputs.

Legend: S samples, V units of an activation layer.
"""

from collections import defaultdict

import torch

from libranas.zero_cost.captures import Activation
from libranas.zero_cost.hooks import RowsDiffer
from libranas.zero_cost.passes.context import Context


class Signs:
    """Signs at the places of an axis, joined from the parts of a batch; given to all `needs`.

    Where an image has several rows (windows of it, tokens) they are more units of one sample.
    """

    def __init__(self, context: Context, *needs: str):
        self.context, self.needs = context, needs
        self._parts: dict[str, list[torch.Tensor]] = defaultdict(list)

    def see(self, images: int, place: str, values: torch.Tensor) -> None:
        """Take the values at a place for `images` images; a callback of the recorder."""
        if len(values) % images:
            raise RowsDiffer
        bits_SV = _fires(values).reshape(images, -1)
        if images == len(self.context.inputs):
            self._give(place, bits_SV)
        else:  # kept as single bytes
            self._parts[place].append(bits_SV.bool().cpu())

    def give(self) -> None:
        """Give what the parts have shown to the proxies."""
        for place, parts in self._parts.items():
            if sum(map(len, parts)) != len(self.context.inputs) or len({part.shape[1] for part in parts}) > 1:
                reason = f"activation {place} has no input, or one of another size, for some of the images"
                self.context.collected.refuse(reason, *self.needs)
                continue
            self._give(place, torch.cat(parts).to(self.context.inputs.device).float())

    def _give(self, place: str, bits_SV: torch.Tensor) -> None:
        self.context.collected.give(place, Activation(place, bits_SV), *self.needs)


def _fires(values: torch.Tensor) -> torch.Tensor:
    """Return 1.0 where a value is positive, else 0.0, as (samples, units); float32, made in one go.

    Units come in the order of memory: none of what is made of them depends on it.
    """
    if values.dim() == 4 and values.is_contiguous(memory_format=torch.channels_last):
        values = values.movedim(1, -1)
    bits = torch.empty(values.shape, dtype=torch.float32, device=values.device)
    return torch.gt(values, 0, out=bits).flatten(1)
