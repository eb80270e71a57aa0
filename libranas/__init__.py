"""libranas: zero-shot neural architecture search for vision transformers (L-SWAG, LIBRA-NAS).

The names below are the promised interface; everything else may change. They are loaded on first use, so
``import libranas`` needs neither torch nor timm.
"""

import importlib

_HOMES = {
    "Arch": "libranas.core.arch",
    "LibranasError": "libranas.core.errors",
    "AutoFormerSpace": "libranas.spaces",
    "make_space": "libranas.spaces",
    "build": "libranas.networks",
    "score": "libranas.zero_cost.score",
    "workflow_folder": "libranas.runs.workflow",
    "list_proxies": "libranas.zero_cost.registry",
}

__all__ = list(_HOMES)


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'libranas' has no attribute {name!r}")


def __dir__():
    return sorted(_HOMES)
