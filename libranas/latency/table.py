"""Look up the latency of a network in a table of measured blocks."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.core.files import read_json
from libranas.core.provenance import digest
from libranas.latency.conditions import Conditions, Latency
from libranas.latency.parts import PARTS
from libranas.spaces import Space


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


def record(arch: Arch, latency: Latency, table: LatencyTable | None, conditions: Conditions) -> dict:
    """Measured latency of one network beside that of the table, with the conditions; JSON-ready."""
    return {**asdict(latency), "table": table and table(arch), "conditions": asdict(conditions)}
