"""What scoring and training cost on a GPU, and what the GPU could do: one command, at most eight minutes.

    python benchmarks/gpu.py --output benchmarks/gpu/NAME.json --budget 430
    python benchmarks/gpu.py --output /tmp/tiny.json --tiny       # small networks on a CPU, to try it out in a minute

Parts come in the order of their worth, and each rewrites the file, so a command that is cut off loses one part. A part
that does not fit into what is left of the budget says so. Networks: random members of AutoFormer-Small at 224 pixels,
batches of 64 images of noise. The headlines go the way of the workflow's scoring job, into an HDF5 file.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import yaml

from libranas import scores as store
from libranas.core.files import write_json
from libranas.core.provenance import facts
from libranas.core.scorecard import ScoreCard
from libranas.networks import build
from libranas.scores.shard import score_shard
from libranas.spaces import make_space
from libranas.zero_cost import tensor_cores
from libranas.zero_cost.registry import get, list_proxies
from libranas.zero_cost.score import score
from libranas.zero_cost.scorer import Scorer

ROOT = Path(__file__).resolve().parents[1]
#: Section ``space``, pixels, images a batch and networks.
FULL = ({"family": "autoformer", "preset": "small"}, 224, 64, 1000)
TINY = ({"family": "autoformer", "preset": "image32-patch8", "depth": [2, 3], "num_heads": [2, 3]}, 32, 16, 8)
#: Networks whose scores are compared between devices.
FAMILIES = {
    "autoformer": ({"family": "autoformer", "preset": "image32-patch8", "depth": [2]}, 32),
    "pit": ({"family": "pit"}, 64),
    "nasbench201": ({"family": "nasbench201", "width": 4, "cells": 1}, 16),
}
#: Kind of a kernel, by words of its name; the first that fits.
KINDS = {
    "sort": ("sort", "radix", "unique"),
    "gather and scatter": ("scatter", "gather", "index"),
    "attention": ("fmha", "flash", "softmax"),
    "product": ("gemm", "cutlass", "sm90", "nvjet", "cublas", "splitk", "bmm"),
    "norm": ("norm",),
    "reduction": ("reduce",),
    "copy": ("copy", "memset", "fill"),
    "elementwise": ("elementwise", "vectorized"),
    "convolution": ("conv",),
}
CLASSES = 10


class Bench:
    """The networks and the batch, on the device."""

    def __init__(self, tiny: bool):
        self.tiny = tiny
        self.device = "cuda" if torch.cuda.is_available() and not tiny else "cpu"
        settings, size, self.batch, count = TINY if tiny else FULL
        self.space = make_space(settings, size, 3, CLASSES)
        rng = np.random.default_rng(1)
        self.archs = [self.space.sample(rng) for _ in range(count)]
        images = torch.randn(self.batch, 3, size, size, generator=torch.Generator().manual_seed(0))
        self.inputs, self.targets = images.to(self.device), (torch.arange(self.batch) % CLASSES).to(self.device)
        self.suite = yaml.safe_load((ROOT / "config.yaml").read_text())["score"]["proxies"]

    @cached_property
    def median(self):
        """The network of median size."""
        return sorted(self.archs, key=self.space.params)[len(self.archs) // 2]

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def milliseconds(self, call: Callable, rounds: int = 5, warm: int = 2) -> dict[str, float]:
        for _ in range(warm):
            call()
        self.wait()
        found = []
        for _ in range(rounds):
            begin = time.perf_counter()
            call()
            self.wait()
            found.append((time.perf_counter() - begin) * 1e3)
        return {"median_ms": statistics.median(found), "min_ms": min(found), "max_ms": max(found)}

    def shard(self, names: list[str], seconds: float, fast: bool, first: int = 0, step: int = 1) -> dict:
        """Score as many networks as should take `seconds`, by two that are timed before, into an HDF5 file."""
        options, archs = {"tensor_cores": fast}, self.archs[first::step]
        scorer = Scorer(self.space, self.inputs, self.targets, "", 1, options, self.device)
        times = [self.milliseconds(lambda arch=arch: scorer.card(arch, 0, names), 1, 0) for arch in archs[:3]]
        each = statistics.mean(t["median_ms"] for t in times[1:]) / 1e3
        count = int(min(len(archs), max(2, seconds / each)))
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            scores = score_shard(scorer, archs[:count], 1, names, Path(folder) / "log.jsonl")
            store.write(Path(folder) / "scores.h5", scores)
            took = time.perf_counter() - begin
            size = (Path(folder) / "scores.h5").stat().st_size
        return {"networks": count, "seconds": took, "seconds_per_1000": 1000 * took / count, "bytes": size}


def conditions(bench: Bench) -> dict:
    query = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.sm,memory.total", "--format=csv,noheader"]
    gpu = subprocess.run(query, capture_output=True, text=True).stdout.strip() if bench.device == "cuda" else ""
    return {**facts(), "device": bench.device, "gpu_state": gpu, "cpus": os.cpu_count(), "cuda": torch.version.cuda}


def ceilings(bench: Bench) -> dict:
    """Copies, and products of the shape of a layer, with their error against float64."""
    device, found = bench.device, {}
    size = 2**20 if bench.tiny else 2**30
    source, target = (torch.empty(size, dtype=torch.uint8, device=device) for _ in range(2))
    found["copy_GB_per_s"] = 2 * size / bench.milliseconds(lambda: target.copy_(source))["median_ms"] / 1e6
    rows, inner, columns = (256, 64, 64) if bench.tiny else (12608, 384, 1152)
    a, b = torch.randn(rows, inner, device=device), torch.randn(inner, columns, device=device) * 0.02
    exact = a.double() @ b.double()

    def product(name: str, call: Callable) -> None:
        took = bench.milliseconds(call)["median_ms"]
        error = relative_error(call(), exact)
        found[name] = {"TFLOP_per_s": 2e-9 * rows * inner * columns / took, "relative_error": error}

    torch.set_float32_matmul_precision("highest")
    product("float32", lambda: a @ b)
    if device == "cuda":
        torch.set_float32_matmul_precision("high")
        product("tf32", lambda: a @ b)
        torch.set_float32_matmul_precision("highest")
        (a_high, _, a_power), (b_high, _, b_power) = tensor_cores.halves(a), tensor_cores.halves(b)
        a3, b3, power = tensor_cores.left(a)[0], tensor_cores.right(b)[0], a_power * b_power
        product("one float16 product", lambda: tensor_cores.multiply(a_high, b_high) * power)
        product("three float16 products, halves at hand", lambda: tensor_cores.multiply(a3, b3) * power)
        product("three float16 products", lambda: tensor_cores.product(a, b))
        a64, b64 = a.double(), b.double()
        product("float64", lambda: a64 @ b64)
    tall = torch.randn(384, rows, device=device)  # many products to a sum, as in the gradient of a batch
    long_sums = tall.double() @ a.double()
    found["error of long sums"] = {
        "float32": relative_error(tall @ a, long_sums),
        "three float16 products": relative_error(tensor_cores.product(tall, a), long_sums),
    }
    for width in (8,) if bench.tiny else (64, 197, 384):
        square = torch.randn(width, width, device=device, dtype=torch.float64)
        square = square @ square.T
        found[f"eigvalsh_{width}"] = bench.milliseconds(lambda x=square: torch.linalg.eigvalsh(x), 3)
    return found


def relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


def parity(bench: Bench) -> dict:
    """Largest relative difference of each proxy: device against CPU, and float32 against float64."""
    names, found = [n for n in list_proxies() if n != "reg_swap"], {}
    for family, (settings, size) in FAMILIES.items():
        space = make_space(settings, size, 3, CLASSES)
        inputs = torch.randn(16, 3, size, size, generator=torch.Generator().manual_seed(0))
        model, targets = build(space, space.sample(np.random.default_rng(1)), 0), torch.arange(16) % CLASSES
        for precision in ("float64", "float32"):
            on_cpu = score(model.cpu(), inputs, targets, names, precision=precision)
            there = score(model.to(bench.device), inputs, targets, names, precision=precision)
            found[f"{family}, {precision}"] = differences(on_cpu, there)
        found[f"{family}, tensor cores"] = differences(on_cpu, score(model, inputs, targets, names, tensor_cores=True))
    model = build(bench.space, bench.median, 0).to(bench.device)
    batch = model, bench.inputs, bench.targets, ["lswag", "snip", "zico", "gradsign", "meco", "jacov"]
    exact = score(*batch, precision="float64")
    found["whole size, float32"] = differences(exact, score(*batch))
    found["whole size, tensor cores"] = differences(exact, score(*batch, tensor_cores=True))
    return found


def differences(one: ScoreCard, other: ScoreCard) -> dict[str, float | str]:
    found: dict[str, float | str] = {}
    for name, of_one in one.scores.items():
        of_other = other.scores[name]
        if of_one.reason != of_other.reason:
            found[name] = f"{of_one.reason!r}, {of_other.reason!r}"
        elif not of_one.reason:
            found[name] = abs(of_other.value - of_one.value) / (abs(of_one.value) or 1.0)
    return found


def one_candidate(bench: Bench) -> dict:
    """Milliseconds by part for the network of median size, and what the profiler sees."""
    space, arch = bench.space, bench.median
    found = {"params": space.params(arch), "macs": space.macs(arch)}
    found["build"] = bench.milliseconds(lambda: build(space, arch, 0), 3, 1)
    model = build(space, arch, 0)
    found["to device"] = bench.milliseconds(lambda: [p.to(bench.device) for p in model.parameters()], 3, 1)
    found["build there"] = bench.milliseconds(lambda: build(space, arch, 0, device=bench.device), 3, 1)
    model.to(bench.device)

    def plain() -> None:
        loss = F.cross_entropy(model(bench.inputs), bench.targets)
        torch.autograd.grad(loss, list(model.parameters()))

    def scored(names: list[str], fast: bool = False) -> Callable:
        return lambda: score(model, bench.inputs, bench.targets, names, macs=space.macs(arch), tensor_cores=fast)

    passes = defaultdict(list)
    for name in bench.suite:
        passes[get(name).run.name].append(name)
    calls = {"plain": plain, "lswag": scored(["lswag"]), "suite": scored(bench.suite)}
    calls |= {"lswag, tensor cores": scored(["lswag"], True), "suite, tensor cores": scored(bench.suite, True)}
    for name, call in calls.items():
        found[name] = bench.milliseconds(call, 3, 1)
    for name, members in passes.items():
        for fast in (False, True):
            found[f"pass {name}" + ", tensor cores" * fast] = bench.milliseconds(scored(members, fast), 2, 1)
    for name, call in calls.items():
        found[f"profile of {name}"] = profile(bench, call)
    found["floor_ms"] = floor_ms(space.macs(arch) * bench.batch)
    return found


def floor_ms(macs: float) -> dict[str, float]:
    """Milliseconds of the products of L-SWAG alone: forward, backward, gradients of all samples; of an H200."""
    flop = 6 * macs
    return {"float32, 67 TFLOP/s": flop / 67e9, "three float16 products, 790 / 3": flop / 790e9 * 3}


def profile(bench: Bench, call: Callable) -> dict:
    """Milliseconds and launches by kind of kernel, the dearest kernels, and calls that the processor waits for."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if bench.device == "cuda" else []
    with torch.profiler.profile(activities=kinds) as profiler:
        call()
        bench.wait()
    events = profiler.key_averages()
    kernels = [e for e in events if e.device_type != torch.autograd.DeviceType.CPU]
    times, launches = Counter(), Counter()
    for e in kernels:
        kind = next((k for k, words in KINDS.items() if any(w in e.key.lower() for w in words)), "other")
        times[kind] += e.self_device_time_total / 1e3
        launches[kind] += e.count
    dearest = sorted(kernels, key=lambda e: -e.self_device_time_total)[:25]
    return {
        "device_ms": sum(times.values()),
        "by_kind": {kind: {"ms": times[kind], "launches": launches[kind]} for kind in times},
        "runtime_calls": {e.key: e.count for e in events if e.key.startswith("cuda")},
        "dearest": [(e.key[:90], e.count, e.self_device_time_total / 1e3) for e in dearest],
    }


def headline_lswag(bench: Bench) -> dict:
    return both_ways(bench, ["lswag"])


def headline_suite(bench: Bench) -> dict:
    return both_ways(bench, bench.suite)


def both_ways(bench: Bench, names: list[str]) -> dict:
    """Ordinary products, and the option `tensor_cores`."""
    seconds = 2 if bench.tiny else 30
    found = {way: bench.shard(names, seconds, way == "tensor_cores") for way in ("ordinary", "tensor_cores")}
    macs = statistics.mean(bench.space.macs(arch) for arch in bench.archs)
    return {**found, "floor_seconds_per_1000": floor_ms(macs * bench.batch)}


def headline_processes(bench: Bench) -> dict:
    """L-SWAG by two and three processes that share the GPU, with the option `tensor_cores`."""
    found = {}
    for count in (2,) if bench.tiny else (2, 3):
        with get_context("spawn").Pool(count) as pool:
            work = [(bench.tiny, 3 if bench.tiny else 25, k, count) for k in range(count)]
            shards = pool.starmap(_shard, work, chunksize=1)
        networks, slowest = sum(s["networks"] for s in shards), max(s["seconds"] for s in shards)
        found[str(count)] = {"networks": networks, "seconds_per_1000": 1000 * slowest / networks}
    return found


def _shard(tiny: bool, seconds: float, first: int, step: int) -> dict:
    torch.set_num_threads(1 if tiny else 4)
    return Bench(tiny).shard(["lswag"], seconds, True, first, step)


def relative_positions(bench: Bench) -> dict:
    """Forward and backward in bfloat16 with each form of relative positions; see relative_position.py."""
    return script(bench, "relative_position.py", "--device", "cuda", "--preset", "small")


def training(bench: Bench) -> dict:
    """Images a second of the final training; see training.py."""
    options = ["--workers", "14", "--peak-tflops", "989", "--only", "projection"]
    return script(bench, "training.py", "--device", "cuda", *options)


def script(bench: Bench, name: str, *options: str) -> dict:
    if bench.tiny:
        return {"skipped": "takes a GPU"}
    command = [sys.executable, str(ROOT / "benchmarks" / name), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    return {"output": done.stdout[-3000:], "errors": done.stderr[-800:]}


#: Parts in the order of their worth, and the seconds that each one needs on a GPU.
PARTS = {
    conditions: 0,
    ceilings: 20,
    parity: 50,
    one_candidate: 60,
    headline_lswag: 65,
    headline_suite: 65,
    headline_processes: 60,
    relative_positions: 25,
    training: 85,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--budget", type=float, default=430, help="seconds (default: 430)")
    parser.add_argument("--only", nargs="+", choices=[part.__name__ for part in PARTS], help="some of the parts")
    parser.add_argument("--tiny", action="store_true", help="small networks, on a CPU")
    options = parser.parse_args()
    begin, found = time.perf_counter(), {"tiny": options.tiny}
    chosen: Iterable = PARTS.items()
    if options.only:
        chosen = [(part, needs) for part, needs in PARTS.items() if part.__name__ in options.only]
    bench = Bench(options.tiny)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for part, needs in chosen:
        left = options.budget - (time.perf_counter() - begin)
        if left < needs and not options.tiny:
            result = {"skipped": f"needs {needs} s, {left:.0f} s are left"}
        else:
            result = measured(bench, part)
        found[part.__name__] = result
        found["seconds"] = time.perf_counter() - begin
        write_json(options.output, found)
        print(part.__name__, json.dumps(result)[:600], flush=True)


def measured(bench: Bench, part: Callable) -> dict:
    """Run a part; an error is a result, so that the other parts are measured."""
    begin = time.perf_counter()
    if bench.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    try:
        result = part(bench)
    except Exception:
        result = {"error": traceback.format_exc()[-1500:]}
    result["part_seconds"] = time.perf_counter() - begin
    if bench.device == "cuda":
        result["peak_bytes"] = torch.cuda.max_memory_allocated()
        torch.cuda.empty_cache()
    return result


if __name__ == "__main__":
    main()
