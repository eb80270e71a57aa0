"""Latencies, the conditions of their measurement, and a table of measured blocks to look them up in."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.core.files import read_json
from libranas.core.provenance import digest
from libranas.latency.parts import Parts
from libranas.spaces import FAMILIES, Space


@dataclass(frozen=True)
class Conditions:
    """Conditions of a latency; settings ``latency`` of the configuration.

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


@dataclass(frozen=True)
class LatencyTable:
    """Milliseconds of the blocks and ends of a space's networks. Call it with an architecture for those of its network.

    Attributes
    ----------
    family : of the networks
    blocks, ends : what each depends on (:class:`libranas.latency.parts.Parts`) to milliseconds
    """

    family: str
    blocks: Mapping[tuple, float]
    ends: Mapping[tuple, float]

    def __call__(self, arch: Arch) -> float:
        ends, blocks = self.parts.of(arch)
        try:
            return self.ends[ends] + sum(self.blocks[block] for block in blocks)
        except KeyError as error:
            raise LibranasError(
                f"The table of latencies has no entry {error} for {arch.json}.",
                "Measure it again for this space: delete latency/table.json of the run.",
            ) from None

    @cached_property
    def parts(self) -> type[Parts]:
        return FAMILIES[self.family].parts()

    def __repr__(self):
        return f"LatencyTable({digest(sorted(self.blocks.items()), sorted(self.ends.items()))})"

    def extremes(self, space: Space) -> list[Arch]:
        """Return members among which are the fastest and the slowest of the space, by this table."""
        return self.parts.extremes(space, self.blocks)

    def to_dict(self) -> dict:
        """Return the table, JSON-ready; :meth:`read` reads it back from a file."""

        def rows(names, table):
            return [{**dict(zip(names, key, strict=False)), "milliseconds": ms} for key, ms in table.items()]

        blocks, ends = rows(self.parts.block, self.blocks), rows(self.parts.ends, self.ends)
        return {"family": self.family, "blocks": blocks, "ends": ends}

    @classmethod
    def read(cls, path: str | Path) -> "LatencyTable":
        record = read_json(path)
        parts = FAMILIES[record["family"]].parts()

        def table(names, rows):
            keys = ([row[name] for name in names if name in row] for row in rows)
            keys = (tuple(tuple(x) if isinstance(x, list) else x for x in key) for key in keys)
            return dict(zip(keys, (row["milliseconds"] for row in rows), strict=True))

        return cls(record["family"], table(parts.block, record["blocks"]), table(parts.ends, record["ends"]))


def record(arch: Arch, latency: Latency, table: LatencyTable | None, conditions: Conditions) -> dict:
    """Return the measured latency of one network, that of the table and the conditions, JSON-ready."""
    return {**asdict(latency), "table": table and table(arch), "conditions": asdict(conditions)}
