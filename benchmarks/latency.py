"""How well a table of block latencies agrees with whole networks of a published space: one of AutoFormer's, or PiT.

    python benchmarks/latency.py [--preset tiny|...|pit] [--device cpu|cuda] [--batch 1] [--dtype float32]

Writes benchmarks/search/latency-PRESET-DEVICE.json: the table, the held-out networks and the conditions.
"""

import argparse
import re
from dataclasses import asdict
from pathlib import Path

from libranas.core.files import write_json
from libranas.core.progress import progress
from libranas.core.provenance import facts
from libranas.latency.measure import measure, timer
from libranas.latency.table import Conditions
from libranas.spaces import make_space
from libranas.spaces.autoformer import PRESETS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny", choices=[*PRESETS, "pit"])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--held-out", type=int, default=20, help="whole networks")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()

    pit = options.preset == "pit"
    size = 8 if options.preset.startswith("digits") else int((re.findall(r"^image(\d+)", options.preset) or [224])[0])
    space = make_space({"family": "pit"} if pit else {"family": "autoformer", "preset": options.preset}, size, 3, 1000)
    settings = {k: getattr(options, k) for k in ("batch", "dtype", "threads", "repetitions")}
    conditions = Conditions(options.device, **settings)
    table, found = measure(space, timer(conditions, progress), options.held_out, seed=1)
    output = options.output or Path(__file__).parent / "search" / f"latency-{options.preset}-{options.device}.json"
    write_json(
        output,
        {
            "space": repr(space),
            "conditions": asdict(conditions),
            **table.to_dict(),
            "held_out": found,
            "facts": facts(),
        },
    )
    numbers = ", ".join(f"{k} {found[k]:.3f}" for k in ("median_error", "worst_error", "bias", "spearman"))
    print(f"{options.held_out} networks of {options.preset}: {numbers}")


if __name__ == "__main__":
    main()
