"""Measured latency: of networks, and of any AutoFormer network from a table of its blocks.

A block of an AutoFormer network costs the same wherever it stands, so the latency of a network is taken as that of its
ends (patch embedding, positions, last normalisation, head), which depends on the width, plus that of each block, which
depends on width, heads and MLP ratio. The table is read off whole networks: a stack of equal blocks less a single
one, by the number of blocks between them. A block by itself would be wrong on a GPU, where the calls of the
next one overlap with it. :func:`measure` also says how well the sums agree with networks of mixed blocks.

All networks of a table are timed in interleaved rounds, so that a machine that slows down slows all of them. A network
that is measured later, by itself, finds the machine as it is then: its record has the table's value beside its own.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

from libranas.arch import Arch
from libranas.errors import LibranasError
from libranas.files import read_json
from libranas.progress import silent
from libranas.provenance import digest, stream_seed
from libranas.spaces import AutoFormerSpace, Space
from libranas.stats import spearman

# What needs torch is imported where something is measured: a search looks up a table without it.


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


def in_rounds(
    runs: Sequence[Callable[[], object]],
    warmup: int,
    repetitions: int,
    clock: Callable[[], float] = time.perf_counter,
    wait: Callable[[], object] = lambda: None,
    progress: Callable = silent,
) -> list[list[float]]:
    """Seconds of each of `runs`, `repetitions` times, in rounds that begin at another one each.

    Parameters
    ----------
    wait : waits until the device has done what it was given; called before the clock is read
    """
    seconds: list[list[float]] = [[] for _ in runs]
    for turn in progress(range(-warmup, repetitions), warmup + repetitions, f"latency of {len(runs)} networks"):
        for i in range(len(runs)):
            i = (i + turn) % len(runs)
            wait()
            begin = clock()
            runs[i]()
            wait()
            if turn >= 0:
                seconds[i].append(clock() - begin)
    return seconds


def interleaved(runs: Sequence[Callable[[], object]], *arguments, **options) -> list[Latency]:
    """Latency of each of `runs`, timed by :func:`in_rounds`."""
    return [Latency.of(seconds) for seconds in in_rounds(runs, *arguments, **options)]


def timer(conditions: Conditions, progress: Callable = silent) -> Timer:
    """Builds networks with random weights and times all that it is given in turn, in inference mode."""

    def timed(space: Space, archs: Sequence[Arch]) -> list[Latency]:
        import torch

        from libranas.nets import build

        dtype = getattr(torch, conditions.dtype)
        shape = (conditions.batch, space.channels, space.image_size, space.image_size)
        images = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(conditions.device, dtype)
        on_gpu = images.device.type == "cuda"
        before = torch.get_num_threads()
        torch.set_num_threads(conditions.threads)
        try:
            nets = [build(space, arch, 0, fused=True).to(conditions.device, dtype).eval() for arch in archs]
            with torch.inference_mode():
                return interleaved(
                    [lambda net=net: net(images) for net in nets],
                    conditions.warmup,
                    conditions.repetitions,
                    wait=torch.cuda.synchronize if on_gpu else lambda: None,
                    progress=progress,
                )
        finally:
            torch.set_num_threads(before)

    return timed


@dataclass(frozen=True)
class LatencyTable:
    """Milliseconds of the blocks and ends of AutoFormer networks; called with an architecture, of the whole one.

    Attributes
    ----------
    blocks : (width, heads, MLP ratio) to milliseconds
    ends : width to milliseconds
    """

    blocks: Mapping[tuple[int, int, float], float]
    ends: Mapping[int, float]

    def __call__(self, arch: Arch) -> float:
        width = arch["embed_dim"]
        blocks = zip(arch["num_heads"], arch["mlp_ratio"], strict=True)
        try:
            return self.ends[width] + sum(self.blocks[width, heads, ratio] for heads, ratio in blocks)
        except KeyError as error:
            raise LibranasError(
                f"The table of latencies has no entry {error} for {arch.json}.",
                "Measure it again for this space: delete latency/table.json of the run.",
            ) from None

    def __repr__(self):
        return f"LatencyTable({digest(sorted(self.blocks.items()), sorted(self.ends.items()))})"

    def extremes(self, space: AutoFormerSpace) -> list[Arch]:
        """Members among which are the fastest and the slowest of the space, by this table."""
        found = []
        for width, pick in product(space.embed_dim, (min, max)):
            kind = pick(product(space.num_heads, space.mlp_ratio), key=lambda k: self.blocks[width, *k])
            depths = [min(space.depth), max(space.depth)]  # a block that was too fast to measure may be below zero
            found += [space.arch(width, [kind[0]] * d, [kind[1]] * d) for d in depths]
        return found

    def to_dict(self) -> dict:
        """JSON-ready; :meth:`read` takes it from a file back."""
        return {
            "blocks": [
                {"embed_dim": d, "num_heads": h, "mlp_ratio": r, "milliseconds": ms}
                for (d, h, r), ms in self.blocks.items()
            ],
            "ends": [{"embed_dim": d, "milliseconds": ms} for d, ms in self.ends.items()],
        }

    @classmethod
    def read(cls, path: str | Path) -> "LatencyTable":
        record = read_json(path)
        blocks = {(b["embed_dim"], b["num_heads"], b["mlp_ratio"]): b["milliseconds"] for b in record["blocks"]}
        return cls(blocks, {e["embed_dim"]: e["milliseconds"] for e in record["ends"]})


def measure(space: AutoFormerSpace, timed: Timer, held_out: int, seed: int) -> tuple[LatencyTable, dict]:
    """Read a table off stacks of equal blocks, the deepest of the space and a single block of each kind, and check it.

    Stacks and the random members that check them are timed in the same rounds, since a machine does not keep its speed
    for minutes; so all of them are in memory together.

    Returns
    -------
    the table, and how well its sums agree with `held_out` networks, which made no entry: a JSON-ready dict with
    ``networks`` (``id, architecture, table, measured, low, high``, milliseconds) and over them ``median_error``,
    ``worst_error`` (absolute, as shares of the measured latency), ``bias`` (mean signed error) and ``spearman``
    """
    deep = max(*space.depth, 2)
    stacks = replace(space, depth=(1, deep, *space.depth))
    kinds = list(product(space.embed_dim, space.num_heads, space.mlp_ratio))
    rng = np.random.default_rng(stream_seed(seed, "latency", "check"))
    others = [space.sample(rng) for _ in range(held_out)]
    times = timed(stacks, [*(stacks.arch(w, [h] * d, [r] * d) for w, h, r in kinds for d in (1, deep)), *others])

    blocks: dict[tuple, float] = {}
    rest: dict[int, list[float]] = {}
    for kind, one, all_ in zip(kinds, times[: 2 * len(kinds) : 2], times[1 : 2 * len(kinds) : 2], strict=True):
        blocks[kind] = (all_.median - one.median) / (deep - 1)
        rest.setdefault(kind[0], []).append(one.median - blocks[kind])
    table = LatencyTable(blocks, {width: float(np.median(x)) for width, x in rest.items()})

    rows = [
        {
            "id": arch.id,
            "architecture": arch.json,
            "table": table(arch),
            "measured": latency.median,
            "low": latency.low,
            "high": latency.high,
        }
        for arch, latency in zip(others, times[2 * len(kinds) :], strict=True)
    ]
    predicted, measured = (np.array([row[k] for row in rows]) for k in ("table", "measured"))
    error = predicted / measured - 1
    return table, {
        "networks": rows,
        "median_error": float(np.median(np.abs(error))),
        "worst_error": float(np.abs(error).max()),
        "bias": float(error.mean()),
        "spearman": spearman(predicted, measured),
    }


def record(arch: Arch, latency: Latency, table: LatencyTable | None, conditions: Conditions) -> dict:
    """Measured latency of one network beside that of the table, with the conditions; JSON-ready."""
    return {**asdict(latency), "table": table and table(arch), "conditions": asdict(conditions)}
