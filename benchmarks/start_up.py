"""What starting takes, in units of ``import torch``: whole processes, in turns; medians of CPU seconds and wall clock.

    python benchmarks/start_up.py [--rounds 9] [--output benchmarks/start_up/cpu.json]

Rows: ``import libranas``, ``libranas --help``, the scoring engine, and a scoring job from its start to the first score;
beside a process that imports torch and runs one forward and backward of the same network, without anything of libranas
but what builds the network.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from libranas.core.files import write_json
from libranas.core.provenance import facts

ROOT = Path(__file__).resolve().parents[1]

NETWORK = """
import torch
from libranas.networks import build
from libranas.spaces import make_space
torch.set_num_threads(1)
space = make_space({"family": "autoformer", "preset": "digits-autoformer"}, 8, 1, 10)
generator = torch.Generator().manual_seed(0)
inputs, targets = torch.randn(64, 1, 8, 8, generator=generator), torch.arange(64) % 10
arch = space.extremes()[1]
"""
PROCESSES = {
    "import torch": "import torch",
    "import libranas": "import libranas",
    "libranas --help": "from libranas.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass",
    "the scoring engine": "from libranas.zero_cost.score import score",
    "torch, forward, backward": NETWORK
    + "torch.nn.functional.cross_entropy(build(space, arch, 0)(inputs), targets).backward()",
    "first score of a job": NETWORK
    + "from libranas.runs.folder import RunFolder\nfrom libranas.scores.shard import score_shard\n"
    "from libranas.zero_cost.scorer import Scorer\n"
    "Scorer(space, inputs, targets, '', 0).card(arch, 0, ['lswag'])",
}


def seconds(code: str) -> tuple[float, float]:
    """CPU and wall-clock seconds of a new process."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command, environment = [sys.executable, "-c", code], {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True)
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/start_up/cpu.json")
    options = parser.parse_args()
    for code in PROCESSES.values():
        seconds(code)  # files into the system's cache
    rounds = [{name: seconds(code) for name, code in PROCESSES.items()} for _ in range(options.rounds)]
    rows = {}
    for name in PROCESSES:
        cpu, wall = (statistics.median(found[name][i] for found in rounds) for i in (0, 1))
        ratio = statistics.median(found[name][0] / found["import torch"][0] for found in rounds)
        rows[name] = {"cpu": round(cpu, 3), "wall": round(wall, 3), "of_import_torch": round(ratio, 3)}
        print(f"{name:28} CPU {cpu:6.2f} s   wall {wall:6.2f} s   {ratio:5.2f} of import torch")
    job = statistics.median(f["first score of a job"][0] / f["torch, forward, backward"][0] for f in rounds)
    print(f"first score of a job: {job:.2f} of torch with one forward and backward")
    write_json(options.output, {"rows": rows, "job": round(job, 3), "rounds": options.rounds, "facts": facts()})


if __name__ == "__main__":
    main()
