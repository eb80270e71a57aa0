"""Import modules when they are first used: a registry of formulas is read without torch."""

import importlib


class LazyModule:
    """Stands for the module `name` and imports it at the first access to one of its attributes."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str):
        if attribute.startswith("__"):  # asked by tools that look at every object, such as inspect and doctest
            raise AttributeError(attribute)
        return getattr(importlib.import_module(self._name), attribute)


torch = LazyModule("torch")
