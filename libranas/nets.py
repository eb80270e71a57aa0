"""The former name of :mod:`libranas.networks`, which model cards of exported networks still import."""

from libranas.networks import build

__all__ = ["build"]
