"""Measured latency: of networks, and of any vision transformer of a space from a table of its blocks.

A block costs the same wherever it stands, so the latency of a network is taken as that of its ends plus that of each
block. Ends are all that is no block: patch embedding, positions, what stands between two stages, last normalisation,
head. :data:`PARTS` says what the networks of a family consist of. The table is read off whole networks: a stack of
equal blocks less a single one, by the number of blocks between them. A block by itself would be wrong on a GPU, where
the calls of the next one overlap with it. :func:`measure` also says how well the sums agree with networks of mixed
blocks.

All networks of a table are timed in interleaved rounds, so that a machine that slows down slows all of them. A network
that is measured later, by itself, finds the machine as it is then: its record has the table's value beside its own.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from libranas.arch import Arch
from libranas.errors import LibranasError
from libranas.files import read_json
from libranas.progress import silent
from libranas.provenance import digest, stream_seed
from libranas.spaces import AutoFormerSpace, PiTSpace, Space
from libranas.spaces.pit import STAGES
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


class Stack(NamedTuple):
    """Two networks that differ by blocks of one kind alone.

    Attributes
    ----------
    block : the kind
    one, deep : the networks
    between : blocks that `deep` has more
    """

    block: tuple
    one: Arch
    deep: Arch
    between: int


class AutoFormerParts:
    """A block depends on width, heads and MLP ratio, the ends on the width."""

    block = ("embed_dim", "num_heads", "mlp_ratio")
    ends = ("embed_dim",)

    @staticmethod
    def of(arch: Arch) -> tuple[tuple, list[tuple]]:
        width = arch["embed_dim"]
        return (width,), [(width, *kind) for kind in zip(arch["num_heads"], arch["mlp_ratio"], strict=True)]

    @staticmethod
    def stacks(space: AutoFormerSpace) -> tuple[AutoFormerSpace, list[Stack], list[Arch]]:
        most = max(*space.depth, 2)
        kinds = product(space.embed_dim, space.num_heads, space.mlp_ratio)
        stacks = [
            Stack((w, h, r), *(space.arch(w, [h] * depth, [r] * depth) for depth in (1, most)), most - 1)
            for w, h, r in kinds
        ]
        return replace(space, depth=(1, most, *space.depth)), stacks, []

    @staticmethod
    def extremes(space: AutoFormerSpace, blocks: Mapping[tuple, float]) -> list[Arch]:
        found = []
        for width, pick in product(space.embed_dim, (min, max)):
            heads, ratio = pick(product(space.num_heads, space.mlp_ratio), key=lambda k: blocks[width, *k])
            found += [space.arch(width, [heads] * d, [ratio] * d) for d in (min(space.depth), max(space.depth))]
        return found


class PiTParts:
    """A block depends on its stage too, whose tokens are fewer than those of the one before; the ends depend on the
    widths of all stages."""

    block = ("stage", "base_dim", "num_heads", "mlp_ratio")
    ends = ("base_dim", "num_heads")

    @staticmethod
    def of(arch: Arch) -> tuple[tuple, list[tuple]]:
        width, ratio, heads = arch["base_dim"], arch["mlp_ratio"], arch["num_heads"]
        blocks = [(i, width, heads[i], ratio) for i, depth in enumerate(arch["depth"]) for _ in range(depth)]
        return (width, heads), blocks

    @staticmethod
    def stacks(space: PiTSpace) -> tuple[PiTSpace, list[Stack], list[Arch]]:
        most = [max(*choices, 2) for choices in space.stage_depth]
        one = [1] * STAGES
        stacks = []
        for width, ratio, heads in product(space.base_dim, space.mlp_ratio, space.num_heads):
            shallow = space.arch(width, ratio, one, [heads] * STAGES)
            for i, depth in enumerate(most):
                deep = space.arch(width, ratio, [*one[:i], depth, *one[i + 1 :]], [heads] * STAGES)
                stacks.append(Stack((i, width, heads, ratio), shallow, deep, depth - 1))
        mixed = (heads for heads in space.heads if len(set(heads)) > 1)
        others = [
            space.arch(width, min(space.mlp_ratio), one, heads) for width, heads in product(space.base_dim, mixed)
        ]
        depths = tuple((1, depth, *choices) for depth, choices in zip(most, space.stage_depth, strict=True))
        return replace(space, stage_depth=depths), stacks, others

    @staticmethod
    def extremes(space: PiTSpace, blocks: Mapping[tuple, float]) -> list[Arch]:
        depths = product(*((min(choices), max(choices)) for choices in space.stage_depth))
        return [space.arch(*genes) for genes in product(space.base_dim, space.mlp_ratio, depths, space.heads)]


#: Family -> what its networks consist of, for the table of latencies: ``block`` and ``ends``, the names of what each
#: depends on; ``of(arch)``, these for the ends and for every block; ``stacks(space)``, a space with more depths, its
#: stacks for all kinds of block, and members of one block a stage for ends that no stack has;
#: ``extremes(space, blocks)``, members among which are the fastest and the slowest. A block that was too fast to
#: measure may be below zero, so that more of them are faster.
PARTS = {"autoformer": AutoFormerParts, "pit": PiTParts}


@dataclass(frozen=True)
class LatencyTable:
    """Milliseconds of the blocks and ends of a space's networks; called with an architecture, of the whole one.

    Attributes
    ----------
    family : of the networks
    blocks, ends : what each depends on (:data:`PARTS`) to milliseconds
    """

    family: str
    blocks: Mapping[tuple, float]
    ends: Mapping[tuple, float]

    def __call__(self, arch: Arch) -> float:
        ends, blocks = PARTS[self.family].of(arch)
        try:
            return self.ends[ends] + sum(self.blocks[block] for block in blocks)
        except KeyError as error:
            raise LibranasError(
                f"The table of latencies has no entry {error} for {arch.json}.",
                "Measure it again for this space: delete latency/table.json of the run.",
            ) from None

    def __repr__(self):
        return f"LatencyTable({digest(sorted(self.blocks.items()), sorted(self.ends.items()))})"

    def extremes(self, space: Space) -> list[Arch]:
        """Members among which are the fastest and the slowest of the space, by this table."""
        return PARTS[self.family].extremes(space, self.blocks)

    def to_dict(self) -> dict:
        """JSON-ready; :meth:`read` takes it from a file back."""

        def rows(names, table):
            return [{**dict(zip(names, key, strict=True)), "milliseconds": ms} for key, ms in table.items()]

        parts = PARTS[self.family]
        return {"family": self.family, "blocks": rows(parts.block, self.blocks), "ends": rows(parts.ends, self.ends)}

    @classmethod
    def read(cls, path: str | Path) -> "LatencyTable":
        record = read_json(path)
        parts = PARTS[record["family"]]

        def table(names, rows):
            keys = ([row[name] for name in names] for row in rows)
            keys = (tuple(tuple(x) if isinstance(x, list) else x for x in key) for key in keys)
            return dict(zip(keys, (row["milliseconds"] for row in rows), strict=True))

        return cls(record["family"], table(parts.block, record["blocks"]), table(parts.ends, record["ends"]))


def measure(space: Space, timed: Timer, held_out: int, seed: int) -> tuple[LatencyTable, dict]:
    """Read a table off stacks of equal blocks, the deepest of the space and a single block of each kind, and check it.

    Stacks and the random members that check them are timed in the same rounds, since a machine does not keep its speed
    for minutes; so all of them are in memory together.

    Returns
    -------
    the table, and how well its sums agree with `held_out` networks, which made no entry: a JSON-ready dict with
    ``networks`` (``id, architecture, table, measured, low, high``, milliseconds) and over them ``median_error``,
    ``worst_error`` (absolute, as shares of the measured latency), ``bias`` (mean signed error) and ``spearman``; and
    ``sources``, the networks that the table was read off (``architecture, median, low, high``)
    """
    parts = PARTS[space.family]
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


def record(arch: Arch, latency: Latency, table: LatencyTable | None, conditions: Conditions) -> dict:
    """Measured latency of one network beside that of the table, with the conditions; JSON-ready."""
    return {**asdict(latency), "table": table and table(arch), "conditions": asdict(conditions)}
