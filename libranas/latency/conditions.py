"""Under which conditions a latency is measured, and what a measurement is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from libranas.core.arch import Arch
from libranas.spaces import Space


@dataclass(frozen=True)
class Conditions:
    """What a latency depends on besides the network; settings ``latency`` of the configuration.

    Attributes
    ----------
    batch : images at a time
    dtype : of weights and images, ``float32``, ``bfloat16`` or ``float16``
    threads : of PyTorch on the CPU
    warmup, repetitions : runs that are not counted, and that are
    """

    device: str = "cpu"
    batch: int = 1
    dtype: str = "float32"
    threads: int = 1
    warmup: int = 3
    repetitions: int = 20


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one batch: median and quartiles over the repetitions."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Latency":
        low, median, high = np.percentile(np.asarray(seconds) * 1000, [25, 50, 75])
        return cls(float(median), float(low), float(high))


#: Architectures -> latency of each; see :func:`timer`.
Timer = Callable[[Space, Sequence[Arch]], list[Latency]]
