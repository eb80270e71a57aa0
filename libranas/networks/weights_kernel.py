"""A Triton kernel for the random numbers of all initial weights of a network: one start instead of ten thousands.

This module imports Triton, which comes with PyTorch for NVIDIA GPUs.
"""

from collections.abc import Iterable

import numpy as np
import torch
import triton
import triton.language as tl
from triton.language.random import philox_impl

from libranas.core.random import stream_key
from libranas.networks import initial_weights

#: States of the generator that a program goes through; each makes eight numbers.
STATES = 256
NUMBERS = 8 * STATES


def uniform(seed: int, counts: Iterable[tuple[str, int]], device: torch.device) -> tuple[torch.Tensor, list[int]]:
    """Return :func:`libranas.networks.initial_weights.uniform` of several tensors, by name and count.

    Returns
    -------
    float64, one after the other; and where each one begins. Behind each lie some numbers more.
    """
    keys, programs = [], []
    for name, count in counts:
        key = stream_key(seed, name)
        keys.append([key % 2**64, key >> 64])
        programs.append(-(-count // NUMBERS))
    ends = np.cumsum(programs)
    first = np.arange(ends[-1]) - np.repeat(ends - programs, programs)
    table = np.column_stack([np.repeat(np.array(keys, np.uint64), programs, axis=0), first.astype(np.uint64)])
    made = torch.empty(len(table) * NUMBERS, dtype=torch.float64, device=device)
    with torch.cuda.device_of(made):  # Triton starts a kernel on the current device
        _uniform[(len(table),)](
            made, torch.from_numpy(table.view(np.int64)).to(device, non_blocking=True), STATES=STATES
        )
    return made, ((ends - programs) * NUMBERS).tolist()


def probe(device: torch.device) -> None:
    """Run the kernel once; RuntimeError if its numbers are not the usual ones."""
    count = NUMBERS + 1
    made, _ = uniform(1, [("weight", count)], device)
    if not torch.equal(made[:count].cpu(), initial_weights.uniform(1, "weight", count)):
        raise RuntimeError("its random numbers are wrong")


@triton.jit
def _uniform(made_ptr, table_ptr, STATES: tl.constexpr):
    program = tl.program_id(0).to(tl.int64)
    row = table_ptr + 3 * program
    low = tl.load(row).to(tl.uint64, bitcast=True)
    high = tl.load(row + 1).to(tl.uint64, bitcast=True)
    state = tl.arange(0, STATES).to(tl.int64)
    counter = (tl.load(row + 2) * STATES + state + 1).to(tl.uint64, bitcast=True)  # NumPy counts from one
    nothing = counter * 0
    a, b, c, d = philox_impl(counter, nothing, nothing, nothing, low, high)
    place = made_ptr + 8 * (program * STATES + state)
    _store(place, a)
    _store(place + 2, b)
    _store(place + 4, c)
    _store(place + 6, d)


@triton.jit
def _store(place, word):
    """Store a number in (-1, 1) for each half of a word, the lower one first."""
    tl.store(place, word.to(tl.int32).to(tl.float64) * 2.0**-31 + 2.0**-32)
    tl.store(place + 1, (word >> 32).to(tl.int32).to(tl.float64) * 2.0**-31 + 2.0**-32)
