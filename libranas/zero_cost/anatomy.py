"""Sort the modules of a network by their role."""

import sys
from dataclasses import dataclass

from torch import nn

from libranas.core.errors import LibranasError
from libranas.zero_cost.gradient_operands import LAYER_RULES, is_layer, rule_of

BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, *BATCH_NORMS)
ACTIVATIONS = (nn.ReLU, nn.GELU, nn.SiLU)


@dataclass(frozen=True)
class Anatomy:
    """The modules of a network by their role; names as in ``named_modules``.

    ``excluded`` names the parameters that belong to no layer: biases, norms, embeddings and bare parameters (class
    token, positions, relative-position tables).
    """

    layers: dict[str, nn.Module]
    norms: dict[str, nn.Module]
    activations: dict[str, nn.Module]
    features: list[tuple[str, nn.Module, str]]
    excluded: tuple[str, ...]

    @property
    def batch_norms(self) -> dict[str, nn.Module]:
        """Batch normalisations, which in training mode make the loss of an image depend on the others."""
        return {name: m for name, m in self.norms.items() if isinstance(m, BATCH_NORMS)}


def examine(model: nn.Module, features: tuple[str, ...] = ()) -> Anatomy:
    """Sort the modules of `model`; LibranasError for a module that owns a weight of a type without a rule.

    Parameters
    ----------
    features : names of modules whose outputs are the primary blocks; default: :func:`feature_points`
    """
    layers, norms, activations, counted = {}, {}, {}, set()
    for name, module in model.named_modules():
        if is_layer(module):
            if not _ordinary(module):
                raise LibranasError(
                    f"No rule for layer {name or '(root)'} of type {type(module).__name__}: its weight is computed "
                    "or it has a forward of its own.",
                    "Fold it into a plain layer (see torch.nn.utils.parametrize.remove_parametrizations).",
                )
            layers[name] = module
            counted.add(f"{name}.weight" if name else "weight")
        elif isinstance(module, ACTIVATIONS):
            activations[name] = module
        elif isinstance(module, NORMS):
            norms[name] = module
        elif not isinstance(module, nn.Embedding):
            unknown = [p for p, _ in module.named_parameters(recurse=False) if "weight" in p]
            if unknown:
                raise LibranasError(
                    f"No rule for layer {name or '(root)'} of type {type(module).__name__} "
                    f"with parameters {', '.join(unknown)}.",
                    f"Known layers: {', '.join(c.__name__ for c in LAYER_RULES)}. Build the network from those.",
                )
    excluded = tuple(name for name, _ in model.named_parameters() if name not in counted)
    return Anatomy(layers, norms, activations, feature_points(model, features), excluded)


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


def odd_norms(anatomy: Anatomy) -> list[str]:
    """Return the norms with a weight and a forward of their own, such as one over channels first."""
    return [
        name
        for name, m in anatomy.norms.items()
        if m.weight is not None
        and not _is_timms(m, "LayerNorm", "GroupNorm")  # other kernels, the same arithmetic
        and not any(isinstance(m, k) and type(m).forward is k.forward for k in NORMS)
    ]


def kind_of(name: str, module: nn.Module) -> str:
    """Return ``attention``, ``linear`` or ``convolution``; a linear layer belongs to an attention by its name."""
    kind = rule_of(module).kind
    return "attention" if kind == "linear" and any(word in name for word in ("attn", "attention", "qkv")) else kind
