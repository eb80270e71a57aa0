"""What large samples cost: planning, merging, reading a column, starting a scoring job, and the stages after scoring.

    python benchmarks/scale.py [--architectures 1000000] [--proxies 30] [--part plan merge start rank]
    python benchmarks/scale.py --part estimate    # `libranas plan` of the default run, and that run, on two idle cores

Scores are synthetic (N(0, 1), no components); everything else is the real thing: Snakemake's dry run, the functions of
the stages, the imports of a scoring job. Writes benchmarks/scale/PART.json with the conditions; the load of the machine
is among them, because times on a busy one mean little.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import yaml

from libranas import scores as store
from libranas.core.arch import Arch
from libranas.core.files import write_json
from libranas.core.provenance import facts

ROOT = Path(__file__).resolve().parents[1]
HERE = Path(__file__).with_name("scale")
#: Seconds of twenty million additions in plain Python, beside every measurement: how fast a core is at that moment.
YARDSTICK = """
import time
start, x = time.process_time(), 0
for i in range(20_000_000):
    x += i
print(time.process_time() - start)
"""


def child(*command: str) -> tuple[float, float, float]:
    """Wall and processor seconds of a command and its largest resident memory in MB."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(map(str, command))} failed")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def yardstick() -> float:
    return float(subprocess.run([sys.executable, "-c", YARDSTICK], capture_output=True, text=True, check=True).stdout)


def plan(rounds: int) -> dict:
    """``snakemake -n`` of the default experiment with samples of several sizes, in interleaved rounds."""
    found = {count: [] for count in (1000, 100_000, 1_000_000)}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for count, measured in found.items():
                (overlay := Path(folder) / f"{count}.yaml").write_text(yaml.safe_dump({"sample": {"count": count}}))
                dry = ["-n", "--quiet", "rules", "--directory", folder, "--configfile", "config.yaml", str(overlay)]
                measured.append(
                    (*child(sys.executable, "-m", "snakemake", *dry, "--config", "sample={shards: auto}"), yardstick())
                )
    keys = ("seconds", "processor_seconds", "megabytes", "yardstick_seconds")
    return {str(count): {k: [m[i] for m in measured] for i, k in enumerate(keys)} for count, measured in found.items()}


def synthetic(rng: np.random.Generator, first: int, count: int, proxies: int) -> store.Scores:
    """Scores of `count` architectures that look like AutoFormer's."""
    archs = tuple(
        Arch(
            "autoformer",
            {"k": first + i, "embed_dim": 192, "depth": 12, "num_heads": [3] * 12, "mlp_ratio": [3.5] * 12},
        )
        for i in range(count)
    )
    tables = {
        f"proxy{p:02d}": store.ProxyTable(
            rng.normal(size=(count, 1)), np.full((count, 1), "", object), rng.random((count, 1)), {}, 1, 1, "data", ""
        )
        for p in range(proxies)
    }
    passes = {"data": store.PassTable(rng.random((count, 1)), rng.random((count, 1)))}
    sizes = rng.integers(1, 10**7, (2, count))
    return store.Scores(archs, *sizes, (0,), tables, {}, passes, {"conditions": {"synthetic": True}})


MERGE = """
import json, resource, sys, time
from pathlib import Path
from libranas import scores as store
folder = Path(sys.argv[1])
parts = sorted(folder.glob("part*.h5"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
store.merge(folder / "merged.h5", parts)
seconds = time.perf_counter() - start
print(json.dumps([seconds, before / 1024, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""
COLUMN = """
import sys, time
from libranas import scores as store
start = time.perf_counter()
store.column(sys.argv[1], "proxy07")
print(time.perf_counter() - start)
"""
WALK = """
import resource, sys, time
from libranas import scores as store
start = time.perf_counter()
store.frame(store.Blocks(sys.argv[1], ()))
print([time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024])
"""


def said(code: str, *arguments) -> list | float:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


def merge(architectures: int, proxies: int, shards: int, rounds: int, folder: Path) -> dict:
    """Merging files of shards into one, and reading it; every step in a process of its own."""
    rng, each = np.random.default_rng(0), architectures // shards
    with tempfile.TemporaryDirectory(dir=folder) as place:
        for k in range(shards):
            store.write(Path(place) / f"part{k:05d}.h5", synthetic(rng, k * each, each, proxies))
        size = sum(p.stat().st_size for p in Path(place).glob("part*.h5")) / 1e6
        rows = []
        for _ in range(rounds):
            yard, (seconds, before, after) = yardstick(), said(MERGE, place)
            walk, walked = said(WALK, f"{place}/merged.h5")
            rows.append(
                (seconds, size / seconds, before, after, said(COLUMN, f"{place}/merged.h5"), walk, walked, yard)
            )
        merged = (Path(place) / "merged.h5").stat().st_size / 1e6
    keys = "merge_seconds merge_megabytes_per_second megabytes_before megabytes_at_most column_seconds"
    keys = [*keys.split(), "frame_seconds", "frame_megabytes_at_most", "yardstick_seconds"]
    rounds_of = {key: [row[i] for row in rows] for i, key in enumerate(keys)}
    numbers = {"architectures": architectures, "proxies": proxies, "shards": shards}
    return {**numbers, "megabytes_of_shards": size, "megabytes_merged": merged, **rounds_of}


START = """
import json, time
steps, last = {}, time.perf_counter()
def step(name):
    global last
    now = time.perf_counter()
    steps[name] = now - last
    last = now
import pandas
step("pandas")
import torch
step("torch")
import libranas.runs.stages.scores
from libranas.networks.device import pick_device
from libranas.zero_cost.scorer import Scorer
step("libranas")
pick_device("auto")
step("device")
import numpy as np
from libranas.spaces import make_space, Sampler, Budget
space = make_space({"family": "autoformer", "preset": "digits-autoformer"}, 8, 1, 10)
inputs, targets = torch.randn(64, 1, 8, 8), torch.arange(64) % 10
scorer = Scorer(space, inputs, targets, "0", 1)
archs = Sampler(space, Budget(), np.random.default_rng(0)).take(3)
step("space and batch")
PROXIES = __import__("yaml").safe_load(open("config.yaml"))["score"]["proxies"]
torch.set_num_threads(1)
scorer.card(archs[0], 0, PROXIES)
step("first network")
scorer.card(archs[1], 0, PROXIES)
step("second network")
print(json.dumps(steps))
"""


def start(rounds: int) -> dict:
    """The steps of a scoring job up to its first network, and what Snakemake adds on a cluster."""
    found = {}
    for _ in range(rounds):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", START], capture_output=True, text=True, check=True, cwd=ROOT, env=environment
        )
        steps = {**json.loads(done.stdout), "import snakemake": child(sys.executable, "-c", "import snakemake.cli")[0]}
        steps["yardstick_seconds"] = yardstick()
        for name, seconds in steps.items():
            found.setdefault(name, []).append(seconds)
    return found


def rank(architectures: int, shards: int, folder: Path) -> dict:
    """The stages from merging to the report, on architectures of which 100 have an accuracy (large_sample.py)."""
    found, keys = {}, ("seconds", "processor_seconds", "megabytes")
    with tempfile.TemporaryDirectory(dir=folder) as place:
        for stage in ("scored", "merge", "layers", "libra", "report"):
            command = [sys.executable, str(ROOT / "benchmarks/large_sample.py"), stage, place]
            measured = child(*command, str(architectures), str(shards))
            found[stage] = {key: [value] for key, value in zip(keys, measured, strict=True)}
        size = (Path(place) / "report.html").stat().st_size
    return {"architectures": architectures, "shards": shards, "bytes_of_report": size, **found}


def estimate(folder: Path) -> dict:
    """What `libranas plan` says of the default run in a new folder of `libranas init`, and what the run takes."""
    with tempfile.TemporaryDirectory(dir=folder) as run:
        options = {"cwd": run, "env": {**os.environ, "PYTHONPATH": str(ROOT)}, "check": True}
        subprocess.run([sys.executable, "-m", "libranas", "init", "."], **options)
        command = [sys.executable, "-m", "libranas", "plan", "--cores", "2"]
        plan = subprocess.run(command, stdout=subprocess.PIPE, text=True, **options).stdout
        number, unit = re.search(r"^about ([\d.]+) (s|min|h) with", plan, re.M).groups()
        expected, begin = float(number) * {"s": 1 / 60, "min": 1, "h": 60}[unit], time.monotonic()
        subprocess.run([sys.executable, "-m", "snakemake", "--cores", "2", "--quiet", "rules"], **options)
        taken = (time.monotonic() - begin) / 60
    return {"minutes_expected": expected, "minutes_taken": taken, "ratio": taken / expected, "plan": plan}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--part", nargs="+", default=["plan", "merge", "start"], choices=["plan", "merge", "start", "rank", "estimate"]
    )
    parser.add_argument("--architectures", type=int, default=1_000_000)
    parser.add_argument("--proxies", type=int, default=30)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where temporary files go")
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    options = parser.parse_args()
    parts = {
        "plan": lambda: plan(options.rounds),
        "merge": lambda: merge(options.architectures, options.proxies, options.shards, options.rounds, options.folder),
        "start": lambda: start(options.rounds),
        "rank": lambda: rank(options.architectures, options.shards, options.folder),
        "estimate": lambda: estimate(options.folder),
    }
    for part in options.part:
        before = os.getloadavg()
        found = {"found": parts[part](), "load": [before, os.getloadavg()], "rounds": options.rounds, "facts": facts()}
        if not options.dry:
            write_json(HERE / f"{part}.json", found)
        for name, value in found["found"].items():
            shown = {k: round(median(v), 2) for k, v in value.items()} if isinstance(value, dict) else value
            print(part, name, round(median(value), 2) if isinstance(value, list) else shown)


if __name__ == "__main__":
    main()
