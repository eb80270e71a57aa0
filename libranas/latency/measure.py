"""Measure latencies: of networks, and of the blocks that the vision transformers of a space are made of.

A block costs the same wherever it stands, so the latency of a network is the sum of its ends and its blocks
(:mod:`libranas.latency.parts`). A block is measured as a deep stack of equal blocks minus one block, divided by the
number of blocks between them: by itself it would be wrong on a GPU, where the calls of the next block overlap with it.
All networks of a table are timed in interleaved rounds, so that a machine that slows down slows all of them.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np

from libranas.core.arch import Arch
from libranas.core.progress import silent
from libranas.core.random import stream_seed
from libranas.core.stats import spearman
from libranas.latency.table import Conditions, Latency, LatencyTable
from libranas.spaces import FAMILIES, Space

#: Architectures -> latency of each; see :func:`timer`.
Timer = Callable[[Space, Sequence[Arch]], list[Latency]]


def in_rounds(
    runs: Sequence[Callable[[], object]],
    warmup: int,
    repetitions: int,
    wait: Callable[[], object] = lambda: None,
    progress: Callable = silent,
) -> list[list[float]]:
    """Time each of `runs` `repetitions` times, in seconds. Each round begins with another run.

    Parameters
    ----------
    wait : waits until the device has finished its work; called before the time is read
    """
    seconds: list[list[float]] = [[] for _ in runs]
    for turn in progress(range(-warmup, repetitions), warmup + repetitions, f"latency of {len(runs)} networks"):
        for i in range(len(runs)):
            i = (i + turn) % len(runs)
            wait()
            begin = time.perf_counter()
            runs[i]()
            wait()
            if turn >= 0:
                seconds[i].append(time.perf_counter() - begin)
    return seconds


def timer(conditions: Conditions, progress: Callable = silent) -> Timer:
    """Return a function that builds networks with random weights and times them in turn, in inference mode."""

    def timed(space: Space, archs: Sequence[Arch]) -> list[Latency]:
        import torch

        from libranas.networks import build

        dtype = getattr(torch, conditions.dtype)
        shape = (conditions.batch, space.channels, space.image_size, space.image_size)
        images = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(conditions.device, dtype)
        on_gpu = images.device.type == "cuda"
        before = torch.get_num_threads()
        torch.set_num_threads(conditions.threads)
        try:
            nets = [build(space, arch, 0, fused=True).to(conditions.device, dtype).eval() for arch in archs]
            with torch.inference_mode():
                seconds = in_rounds(
                    [lambda net=net: net(images) for net in nets],
                    conditions.warmup,
                    conditions.repetitions,
                    torch.cuda.synchronize if on_gpu else lambda: None,
                    progress,
                )
        finally:
            torch.set_num_threads(before)
        return [Latency.of(runs) for runs in seconds]

    return timed


def measure(space: Space, timed: Timer, held_out: int, seed: int) -> tuple[LatencyTable, dict]:
    """Make a table from stacks of equal blocks, the deepest of the space and a single block of each kind, and check it.

    All of the networks are in memory together.

    Returns
    -------
    the table, and how well its sums agree with `held_out` networks, which made no entry: a JSON-ready dict with
    ``networks`` (``id, architecture, table, measured, low, high``, milliseconds) and over them ``median_error``,
    ``worst_error`` (absolute, as shares of the measured latency), ``bias`` (mean signed error) and ``spearman``; and
    ``sources``, the networks that the table was read off (``architecture, median, low, high``)
    """
    parts = FAMILIES[space.family].parts()
    wider, stacks, others = parts.stacks(space)
    rng = np.random.default_rng(stream_seed(seed, "latency", "check"))
    checks = [space.sample(rng) for _ in range(held_out)]
    sources = list(dict.fromkeys([*(a for s in stacks for a in (s.one, s.deep)), *others]))
    times = timed(wider, [*sources, *checks])

    of_source = dict(zip(sources, times[: len(sources)], strict=True))
    blocks = {s.block: (of_source[s.deep].median - of_source[s.one].median) / s.between for s in stacks}
    rest: dict[tuple, list[float]] = {}
    for arch in dict.fromkeys([*(s.one for s in stacks), *others]):
        ends, its_blocks = parts.of(arch)
        rest.setdefault(ends, []).append(of_source[arch].median - sum(blocks[block] for block in its_blocks))
    table = LatencyTable(space.family, blocks, {ends: float(np.median(x)) for ends, x in rest.items()})

    rows = [
        {
            "id": arch.id,
            "architecture": arch.json,
            "table": table(arch),
            "measured": latency.median,
            "low": latency.low,
            "high": latency.high,
        }
        for arch, latency in zip(checks, times[len(sources) :], strict=True)
    ]
    predicted, measured = (np.array([row[k] for row in rows]) for k in ("table", "measured"))
    error = predicted / measured - 1
    return table, {
        "networks": rows,
        "median_error": float(np.median(np.abs(error))),
        "worst_error": float(np.abs(error).max()),
        "bias": float(error.mean()),
        "spearman": spearman(predicted, measured),
        "sources": [{"architecture": arch.json, **asdict(latency)} for arch, latency in of_source.items()],
    }
