"""Where a network multiplies by a weight: in the forward of a layer, or anywhere else that reads the parameter."""

from collections.abc import Callable, Iterable, Iterator
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from libranas.zero_cost.parameters import Parameter

_CONVOLUTIONS = {f"conv{transposed}{n}d" for transposed in ("", "_transpose") for n in (1, 2, 3)}
_RECURRENT = {f"{kind}{cell}" for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu") for cell in ("", "_cell")}
_PRODUCTS = {"matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "baddbmm", "einsum", "tensordot"}


class WeightUses(TorchFunctionMode):
    """Watch linear maps and what their weights are made of.

    Parameters
    ----------
    parameters : id of a tensor of the run -> Parameter
    buffers : the other tensors of the network
    on_use : callable (parameters, weight, output) -> output to go on with
        Called for every linear map, convolution and recurrent layer, with the parameters that its weight is made of.
        Weight and output are None where they cannot be seen.

    Attributes
    ----------
    products : places of parameters that images are multiplied by in another way; they are no layers
    """

    def __init__(self, parameters: dict[int, Parameter], buffers: Iterable[torch.Tensor], on_use: Callable):
        super().__init__()
        self.on_use, self.products = on_use, set()
        #: id of a tensor that depends on no image -> parameters that it is made of
        self._made_of = {key: {parameter} for key, parameter in parameters.items()}
        self._made_of |= {id(buffer): set() for buffer in buffers}
        self._kept = []  # an id is that of a living tensor

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is F.multi_head_attention_forward:
            # Without this it would be seen as a whole, not its linear maps.
            with patch.object(F, "has_torch_function", lambda _: False), self:
                return function(*args, **kwargs)
        output, name = function(*args, **kwargs), getattr(function, "__name__", "")
        tensors = list(_tensors((*args, *kwargs.values())))
        sources = self._sources(tensors)
        if name == "linear" or name in _CONVOLUTIONS:
            weight = args[1] if len(args) > 1 else kwargs["weight"]
            return self._used(self._sources([weight]), weight, output)
        if name in _RECURRENT or name == "bilinear":
            self._used(sources, None, None)
        elif all(id(t) in self._made_of for t in tensors if t.is_floating_point()):
            for made in _tensors([output]):
                self._made_of[id(made)] = sources
                self._kept.append(made)
        elif name == "__setitem__" or (name.endswith("_") and not name.startswith("_")):
            self._made_of.pop(id(args[0]), None)  # an image was written into it
        elif name in _PRODUCTS:
            weights = [t for t in tensors if any(p.of_layer for p in self._sources([t]))]
            if len(weights) == 1:
                return self._used(sources, weights[0], output)
            self.products |= {p.place for p in sources if p.counts}
        return output

    def _sources(self, tensors: Iterable[torch.Tensor]) -> set[Parameter]:
        return set().union(*(self._made_of.get(id(t), ()) for t in tensors))

    def _used(self, sources: set[Parameter], weight, output):
        counted = sorted((p for p in sources if p.counts), key=lambda p: p.place)
        return self.on_use(counted, weight, output) if counted else output


def _tensors(things: Iterable) -> Iterator[torch.Tensor]:
    for thing in things:
        if isinstance(thing, torch.Tensor):
            yield thing
        elif isinstance(thing, (list, tuple)):
            yield from _tensors(thing)
