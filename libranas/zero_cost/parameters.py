"""The parameters of a network in the tensors of a run: which of them are layers, norms or neither."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from libranas.zero_cost.anatomy import NORMS
from libranas.zero_cost.gradient_operands import is_layer

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Parameter:
    """A parameter of a run: its place if it is a layer, its tensor, and whether it is the weight of a layer module."""

    place: str
    tensor: torch.Tensor
    of_layer: bool

    @property
    def counts(self) -> bool:
        """Return whether it is a layer where it multiplies: not where it only scales a weight's outputs or inputs."""
        sizes = self.tensor.shape
        return self.of_layer or (len(sizes) > 1 and self.tensor.numel() > max(sizes))


def key_of(module: str, parameter: str = "weight") -> str:
    """Return the name of a module's parameter in the state of the network."""
    return f"{module}.{parameter}" if module else parameter


def weight_of(tensors: Tensors, place: str) -> torch.Tensor:
    """Return the weight of a layer: of a module, or the parameter that the place is called after."""
    return tensors.get(key_of(place), tensors.get(place))


def parameters_of(model: nn.Module, tensors: Tensors, layers: Iterable[str]) -> dict[int, Parameter]:
    """Return the parameters by the ids of their tensors, a shared one once; `layers` are places that are known."""
    of_layers = {id(tensors[key]) for key in _weights(model, is_layer)}
    places = {id(weight_of(tensors, name)): name for name in layers}
    found: dict[int, Parameter] = {}
    for key, _ in model.named_parameters(remove_duplicate=False):
        tensor = tensors[key]
        place = places.get(id(tensor), "" if key == "weight" else key.removesuffix(".weight"))
        found.setdefault(id(tensor), Parameter(place, tensor, id(tensor) in of_layers))
    return found


def unseen_layers(model: nn.Module, tensors: Tensors, layers: Iterable[str]) -> list[Parameter]:
    """Return the weights of layer modules that are none of `layers`."""
    seen = {id(weight_of(tensors, name)) for name in layers}
    return [p for key, p in parameters_of(model, tensors, layers).items() if p.of_layer and key not in seen]


def kernel_weights(model: nn.Module, tensors: Tensors, layers: Iterable[str]) -> list[torch.Tensor]:
    """Return the weights that the tangent kernel counts: those of layers, and those that scale channels."""
    found = [tensors[key] for key in _weights(model, is_layer)]
    found += [tensors[key] for key in _weights(model, _scales)]
    found += [weight_of(tensors, name) for name in layers]
    return list({id(weight): weight for weight in found}.values())


def excluded(model: nn.Module, layers: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the parameters that are no layers."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    counted = {id(weight_of(parameters, name)) for name in layers}
    names: dict[int, str] = {}
    for name, p in parameters.items():
        names.setdefault(id(p), name)
    return tuple(name for key, name in names.items() if key not in counted)


def _scales(module: nn.Module) -> bool:
    return isinstance(module, NORMS) or module.weight.dim() == 1


def _weights(model: nn.Module, kind) -> list[str]:
    """Return the names of the weights of the modules of a kind."""
    owners = ((name, m) for name, m in model.named_modules() if m._parameters.get("weight") is not None)
    return [key_of(name) for name, module in owners if kind(module)]
