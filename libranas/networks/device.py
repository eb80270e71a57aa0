"""The device that a computation runs on."""

from __future__ import annotations

import logging
from functools import lru_cache
from importlib import import_module
from types import ModuleType

from libranas.core.lazy import torch

log = logging.getLogger("libranas")


def pick_device(setting: str = "auto") -> str:
    """Return the device of a setting; ``auto``: a GPU if there is one, else the CPU."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if setting == "auto" else setting


def is_asynchronous(x: torch.Tensor) -> bool:
    """Return whether the processor goes on while `x` is computed, and waits where it reads a number of it."""
    return x.device.type != "cpu"


@lru_cache
def kernel_on(device: torch.device, name: str) -> ModuleType | None:
    """Return the module of a Triton kernel if that can be built and run on a device, as its ``probe`` tries, or None.

    It takes a GPU, Triton, a C compiler and Python's header files.
    """
    if device.type != "cuda":
        return None
    try:
        module = import_module(name)
        module.probe(device)
    except Exception as error:  # whatever it is, there is another way
        log.warning("%s cannot be used on %s, the slower way is taken (%s)", name, device, error)
        return None
    return module
