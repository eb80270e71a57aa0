"""Run the same small experiment under other conditions, and tell for each kind of value what stays equal.

    python benchmarks/reproduced.py --folder FOLDER          # writes benchmarks/reliability/reproduced.{csv,json}
    python benchmarks/reproduced.py --folder FOLDER --with arm=DIR    # and compares results/tiny of another machine

The run is that of the tests (tests/workflow/tiny.yaml) with guided search. It is compared with itself on one core, with
two shards and one thread a job. Runs that FOLDER has from before are not made again. A difference is relative: of two
single values to the larger one, of tensors to their largest value. Another processor is a set of variables that keep
the libraries from the instructions of this one: ATen, oneDNN, MKL (which has sums in an order of their own for
MKL_CBWR=COMPATIBLE) and the OpenBLAS of NumPy and SciPy.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from values import differences, values

from libranas.core.files import read_json, write_json, write_text
from libranas.core.provenance import facts

HERE = Path(__file__).with_name("reliability")
TWO_THREADS = [
    "--set-threads",
    *(f"{rule}=2" for rule in ["score", "benchmark_train", "guided_train", "guided_long", "train"]),
]
#: Condition to arguments of Snakemake, changes of the configuration, and variables of the environment.
CONDITIONS = {
    "2 jobs, 2 workers": (["--cores", "2"], {"search": {"workers": 2}}, {}),
    "1 shard": ([], {"sample": {"shards": 1}}, {}),
    "5 shards": ([], {"sample": {"shards": 5}}, {}),
    "2 threads": (["--cores", "2", *TWO_THREADS], {}, {}),
    "AVX2": ([], {}, {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "OPENBLAS_CORETYPE": "Haswell"}),
    "SSE": (
        [],
        {},
        {
            "ATEN_CPU_CAPABILITY": "default",
            "ONEDNN_MAX_CPU_ISA": "SSE41",
            "MKL_CBWR": "COMPATIBLE",
            "OPENBLAS_CORETYPE": "Prescott",
        },
    ),
}
BASE = "reference"


def make(name: str, folder: Path) -> None:
    """Run the experiment in this process's environment."""
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests/workflow"))
    from conftest import ENVIRONMENT, Run
    from test_guided_search import GUIDED

    ENVIRONMENT["OMP_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"]
    arguments, changes, _ = CONDITIONS.get(name, ([], {}, {}))
    folder.mkdir(parents=True, exist_ok=True)
    search = {"search": {**GUIDED, **changes.get("search", {})}}
    Run(folder).succeed(*(arguments or ["--cores", "1"]), changes={**changes, **search})


def row(apart: list[float]) -> dict:
    """How many values of a kind are equal, and how far the others are apart."""
    finite = [by for by in apart if np.isfinite(by)]
    return {
        "arrays": len(apart),
        "equal": apart.count(0),
        "not_comparable": len(apart) - len(finite),
        "largest_difference": max(finite, default=0),
    }


def shown(row: dict) -> str:
    if row["equal"] == row["arrays"]:
        return "equal"
    return "other networks" if row["not_comparable"] else f"{row['largest_difference']:.0e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for the runs")
    parser.add_argument("--with", dest="others", nargs="+", default=[], metavar="NAME=DIR", help="results/tiny, copied")
    parser.add_argument("--conditions", nargs="+", choices=list(CONDITIONS), default=list(CONDITIONS), metavar="NAME")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        make(options.only, options.folder / options.only.replace(" ", "-"))
        return
    found = {}
    for name in [BASE, *options.conditions]:
        environment = CONDITIONS[name][2] if name in CONDITIONS else {}
        results = options.folder / name.replace(" ", "-") / "results/tiny"
        if not (results / "report.html").exists():
            command = [sys.executable, __file__, "--folder", options.folder, "--only", name]
            subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, check=True)
        found[name] = results
    found |= {name: Path(folder) for name, _, folder in (text.partition("=") for text in options.others)}
    reference, rows = values(found.pop(BASE)), []
    for name, results in found.items():
        apart = differences(values(results), reference)
        kinds = dict.fromkeys(kind for kind, _, _ in apart)
        rows += [{"kind": k, "condition": name, **row([by for key, by in apart.items() if key[0] == k])} for k in kinds]
    table = pd.DataFrame(rows)
    write_text(HERE / "reproduced.csv", table.to_csv(index=False))
    machines = {name: read_json(results / "train/summary.json")["facts"] for name, results in found.items()}
    keys = ("arguments", "changes", "environment")
    conditions = {name: dict(zip(keys, CONDITIONS[name], strict=True)) for name in options.conditions}
    command = " ".join(sys.argv)
    write_json(
        HERE / "reproduced.json",
        {"conditions": conditions, "facts_of_runs": machines, "command": command, "facts": facts()},
    )
    table["shown"] = [shown(row) for row in rows]
    print(table.pivot(index="kind", columns="condition", values="shown")[list(found)].to_string())


if __name__ == "__main__":
    main()
