"""Sort the modules of a network by their role."""

from dataclasses import dataclass

import timm.layers
from timm.models.pit import PoolingVisionTransformer
from torch import nn

from libranas.core.errors import LibranasError

LAYERS = (nn.Linear, nn.Conv2d, nn.Conv1d)
BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, *BATCH_NORMS)
ACTIVATIONS = (nn.ReLU, nn.GELU)


@dataclass(frozen=True)
class Anatomy:
    """The modules of a network by their role; names as in ``named_modules``.

    ``excluded`` names the parameters that belong to no layer: biases, norms, embeddings and bare
    parameters (class token, positions, relative-position tables). ``coupled`` says that batch
    normalisation is present, which in training mode makes the loss of a sample depend on the others.
    """

    layers: dict[str, nn.Module]
    norms: dict[str, nn.Module]
    activations: dict[str, nn.Module]
    features: list[tuple[str, nn.Module, str]]
    excluded: tuple[str, ...]
    coupled: bool


def examine(model: nn.Module, features: tuple[str, ...] = ()) -> Anatomy:
    """Sort the modules of `model`.

    Parameters
    ----------
    features : names of modules whose outputs are the primary blocks; default: what is known of the model
        (`feature_points`).

    Raises
    ------
    LibranasError
        For a module that owns a weight of a type without a rule; it is named. Never a silent zero.
    """
    layers, norms, activations, counted = {}, {}, {}, set()
    for name, module in model.named_modules():
        if isinstance(module, LAYERS):
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
                    f"Known layers: {', '.join(c.__name__ for c in LAYERS)}. Build the network from those.",
                )
    excluded = tuple(name for name, _ in model.named_parameters() if name not in counted)
    coupled = any(isinstance(m, BATCH_NORMS) for m in model.modules())
    return Anatomy(layers, norms, activations, feature_points(model, features), excluded, coupled)


def _ordinary(module: nn.Module) -> bool:
    """Whether a layer's gradient follows from its input by the rule of its base class, in its own parameter."""
    if type(module) is timm.layers.Linear:  # its own forward differs only under autocast
        return True
    methods = ("forward", "_conv_forward")
    base = next(c for c in LAYERS if isinstance(module, c))
    same = all(getattr(type(module), m, None) is getattr(base, m, None) for m in methods)
    return same and "weight" in module._parameters


def feature_points(model: nn.Module, names: tuple[str, ...] = ()) -> list[tuple[str, nn.Module, str]]:
    """Where the primary blocks end: (name, module, ``"input"`` or ``"output"``) in execution order.

    `names`, else those that the network itself gives as a tuple ``features`` (all of :mod:`libranas.networks` but the
    transformers do). For timm's vision transformers, PiT among them, the residual stream after attention is what enters
    ``norm2``.
    """
    own = getattr(model, "features", ())
    if names := names or (own if isinstance(own, tuple) else ()):
        modules = dict(model.named_modules())
        missing = [n for n in names if n not in modules]
        if missing:
            raise LibranasError(f"Option features: no module is called {', '.join(missing)}.", "See named_modules().")
        return [(n, modules[n], "output") for n in names]
    if isinstance(model, PoolingVisionTransformer):
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
    """Norms with a weight whose forward is not that of their base class, such as one over channels first."""
    kinds = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, *BATCH_NORMS)
    return [
        name
        for name, m in anatomy.norms.items()
        if m.weight is not None
        and type(m) not in (timm.layers.LayerNorm, timm.layers.GroupNorm)  # other kernels, the same arithmetic
        and not any(isinstance(m, k) and type(m).forward is k.forward for k in kinds)
    ]


def kind_of(name: str, module: nn.Module) -> str:
    """``attention``, ``linear`` or ``convolution``; of a linear layer by its name, as modules are called."""
    if not isinstance(module, nn.Linear):
        return "convolution"
    return "attention" if "attn" in name or "attention" in name or "qkv" in name else "linear"
