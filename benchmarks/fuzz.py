"""Try many odd and damaged inputs, other ones with every seed, and count them as Hypothesis does.

    python benchmarks/fuzz.py [--inputs 650] [--seed 0]    # writes benchmarks/reliability/fuzz.{csv,json}

The tests are those of tests/unit/test_fuzz_*.py: an input is read as it is or refused in words. Tried is one with which
a test came to its end or failed; one that the test does not want, or that grew too large, is discarded. The script
fails if a test does.
"""

import argparse
import os
import sys
from pathlib import Path

import pandas as pd
import pytest
from hypothesis.statistics import collector

from libranas.core.files import write_json, write_text
from libranas.core.provenance import facts

HERE = Path(__file__).with_name("reliability")
TESTS = sorted(Path(__file__).resolve().parents[1].glob("tests/unit/test_fuzz_*.py"))


class Counts:
    """A plugin of pytest that keeps a row for each test."""

    def __init__(self):
        self.rows = []

    @pytest.hookimpl(wrapper=True, trylast=True)  # inside of Hypothesis's own, which keeps a text only
    def pytest_runtest_call(self, item):
        found = []
        with collector.with_value(found.append):
            try:
                return (yield)
            finally:
                phases = [phases[key] for phases in found for key in ("reuse-phase", "generate-phase") if key in phases]
                states = [case["status"] for phase in phases for case in phase["test-cases"]]
                failed = states.count("interesting")
                row = {"test": item.nodeid, "tried": states.count("valid") + failed, "failed": failed}
                row |= {"discarded": len(states) - row["tried"], "seconds": sum(p["duration-seconds"] for p in phases)}
                self.rows.append(row)
                print(row, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=650, help="for each test (default: 650, 10,400 together)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ["LIBRANAS_FUZZ"] = str(options.inputs)
    counts = Counts()
    arguments = [f"--hypothesis-seed={options.seed}", "-o", "faulthandler_timeout=600", "-s", *map(str, TESTS)]
    code = pytest.main(arguments, plugins=[counts])
    table = pd.DataFrame(counts.rows)
    write_text(HERE / "fuzz.csv", table.round({"seconds": 2}).to_csv(index=False))
    total = table.drop(columns="test").sum().to_dict()
    found = {"tests": len(table), **{key: round(value) for key, value in total.items()}, "seed": options.seed}
    write_json(HERE / "fuzz.json", {**found, "command": " ".join(sys.argv), "facts": facts()})
    print(found)
    sys.exit(int(code))


if __name__ == "__main__":
    main()
