"""Sort the modules of a network by their role."""

import sys
from dataclasses import dataclass

import torch
from torch import nn

from libranas.core.errors import LibranasError
from libranas.zero_cost.gradient_operands import LAYER_RULES

BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, *BATCH_NORMS)
ACTIVATIONS = (nn.ReLU, nn.GELU, nn.SiLU)


@dataclass(frozen=True)
class Anatomy:
    """The modules of a network by their role; names as in ``named_modules``.

    ``layers`` are of a type with a rule; of those that are not in ``plain`` the rule does not give the gradient.
    """

    modules: dict[str, nn.Module]
    layers: dict[str, nn.Module]
    plain: frozenset[str]
    norms: dict[str, nn.Module]
    activations: dict[str, nn.Module]
    features: list[tuple[str, nn.Module, str]]

    @property
    def batch_norms(self) -> dict[str, nn.Module]:
        """Batch normalisations, which in training mode make the loss of an image depend on the others."""
        return {name: m for name, m in self.norms.items() if isinstance(m, BATCH_NORMS)}


def examine(model: nn.Module, features: tuple[str, ...] = ()) -> Anatomy:
    """Sort the modules of `model`.

    Parameters
    ----------
    features : names of modules whose outputs are the primary blocks; default: :func:`feature_points`
    """
    modules = dict(model.named_modules())
    layers, norms, activations = (
        {name: m for name, m in modules.items() if isinstance(m, kinds)}
        for kinds in (tuple(LAYER_RULES), NORMS, ACTIVATIONS)
    )
    plain = frozenset(name for name, m in layers.items() if _ordinary(m))
    return Anatomy(modules, layers, plain, norms, activations, feature_points(model, features))


def is_known(anatomy: Anatomy) -> bool:
    """Return whether it is a network of this package, of which tests know that the rules hold for it."""
    kinds = [type(m).__module__ for m in anatomy.modules.values()]  # the network itself comes first
    own = ("libranas.networks.", "torch.nn.modules.", "timm.")
    return kinds[0].startswith(own[0]) and all(kind.startswith(own) for kind in set(kinds))


def _ordinary(module: nn.Module) -> bool:
    """Return whether the rule of a layer's base class gives its gradient, and its weight is a parameter of its own."""
    if _is_timms(module, "Linear"):  # its own forward differs only under autocast
        return True
    methods = ("forward", "_conv_forward")
    base = next(c for c in LAYER_RULES if isinstance(module, c))
    same = all(getattr(type(module), m, None) is getattr(base, m, None) for m in methods)
    return same and "weight" in module._parameters


def _is_timms(module: nn.Module, *names: str) -> bool:
    """Return whether a module is exactly of one of timm's layer types."""
    layers = sys.modules.get("timm.layers")  # not imported here: that takes seconds, and such a network has it loaded
    return layers is not None and type(module) in [getattr(layers, name) for name in names]


def feature_points(model: nn.Module, names: tuple[str, ...] = ()) -> list[tuple[str, nn.Module, str]]:
    """Return where the primary blocks end: (name, module, ``"input"`` or ``"output"``) in execution order.

    Default of `names`: the tuple ``features`` of the network itself. In timm's vision transformers, PiT among them,
    blocks end after attention (the input of ``norm2``) and after the MLP.
    """
    own = getattr(model, "features", ())
    if names := names or (own if isinstance(own, tuple) else ()):
        modules = dict(model.named_modules())
        missing = [n for n in names if n not in modules]
        if missing:
            raise LibranasError(f"Option features: no module is called {', '.join(missing)}.", "See named_modules().")
        return [(n, modules[n], "output") for n in names]
    pit = sys.modules.get("timm.models.pit")
    if pit is not None and isinstance(model, pit.PoolingVisionTransformer):
        stages = {f"transformers.{i}.blocks": stage.blocks for i, stage in enumerate(model.transformers)}
    else:
        stages = {"blocks": getattr(model, "blocks", None)}
    points = []
    for name, blocks in stages.items():
        if not isinstance(blocks, nn.Module) or not all(hasattr(b, "norm2") and hasattr(b, "attn") for b in blocks):
            return []
        for i, block in enumerate(blocks):
            points.append((f"{name}.{i}.after_attn", block.norm2, "input"))
            points.append((f"{name}.{i}.after_mlp", block, "output"))
    return points


def is_plain_norm(module: nn.Module) -> bool:
    """Return whether a norm has no forward of its own, such as one over channels first."""
    if _is_timms(module, "LayerNorm", "GroupNorm"):  # other kernels, the same arithmetic
        return True
    return any(isinstance(module, k) and type(module).forward is k.forward for k in NORMS)


def kind_of(name: str, weight: torch.Tensor) -> str:
    """Return ``attention``, ``linear`` or ``convolution``; a linear layer belongs to an attention by its name."""
    if weight.dim() > 2:
        return "convolution"
    return "attention" if any(word in name for word in ("attn", "attention", "qkv")) else "linear"
