"""What several commands need: values of arguments, the device, tables in text."""

import argparse

from libranas.core.errors import LibranasError


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text}")
    return number


def device_of(setting: str) -> str:
    import torch

    from libranas.networks.device import pick_device

    if setting == "cuda" and not torch.cuda.is_available():
        raise LibranasError("--device cuda: PyTorch finds no GPU here.", "Use --device cpu or auto.")
    return pick_device(setting)
