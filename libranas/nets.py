"""The former name of :mod:`libranas.networks`, which model cards of exported networks still import.

Importing it registers the networks of this package with timm. `libranas.nets.build` is `libranas.build`.
"""

import libranas.networks.timm_models  # noqa: F401 - registers the architectures with timm
from libranas.networks import build

__all__ = ["build"]
