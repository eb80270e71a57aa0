"""Seed the random generators that timm, torchvision and networks draw from, and give them back unchanged."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_everything(seed: int, device: torch.device | None = None) -> None:
    """Begin a random stream in all generators.

    ``torch.manual_seed`` would also look for devices that are not used here, which takes a millisecond each time.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type == "cuda":
        torch.cuda.manual_seed(seed)


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Leave the random generators of the caller as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
