"""Register our networks with timm as ``libranas_FAMILY``.

Then ``timm.create_model``, ``features_only``, ``save_for_hf`` and ``local-dir:`` loading work with them.
"""

import timm
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from libranas.networks import builder
from libranas.spaces import FAMILIES

#: timm finds the descriptions of a module's models under this name.
default_cfgs = {}


def create(family: str, **arguments) -> nn.Module:
    """A network of a family, made by timm."""
    return timm.create_model(f"libranas_{family}", **arguments)


def _register(family: str) -> None:
    name, module = f"libranas_{family}", builder(family)
    features = getattr(module, "TIMM_FEATURES", None)

    def entry_point(pretrained: bool = False, **arguments) -> nn.Module:
        if features:
            arguments["feature_cfg"] = dict(features)  # a copy: timm takes entries out
        return build_model_with_cfg(module.NETWORK, name, pretrained, **arguments)

    entry_point.__name__ = name
    entry_point.__doc__ = f"A network of the search space {family}; see :class:`{module.NETWORK.__name__}`."
    default_cfgs.update(generate_default_cfgs({f"{name}.untrained": module.TIMM_CFG}))
    register_model(entry_point)


for _family in FAMILIES:
    if not callable(builder(_family)):
        _register(_family)
