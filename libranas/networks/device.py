"""The device that a computation runs on."""

import torch


def pick_device(setting: str = "auto") -> str:
    """Return the device of a setting; ``auto``: a GPU if there is one, else the CPU."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if setting == "auto" else setting
