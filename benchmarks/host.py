"""What one network costs a processor besides arithmetic: the lower limit of a GPU's job, and most of a narrow network.

    python benchmarks/host.py [--rounds 5] [--output benchmarks/engine/host.json]

Networks as deep as AutoFormer-Small but 16 wide, of the default run (digits), and 192 wide, one thread. Contenders run
in turns, and a ratio is taken between two times of the same round: L-SWAG and the default suite, run by autograd and by
hand (:mod:`libranas.zero_cost.executor`), and L-SWAG by hand with the option `tensor_cores`. Steps are the operations
of PyTorch inside which no other one runs, but for views: on a GPU each starts a kernel.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import yaml

from libranas.core.files import write_json
from libranas.core.provenance import facts
from libranas.networks import build
from libranas.spaces import make_space
from libranas.zero_cost.passes import context
from libranas.zero_cost.score import score

ROOT = Path(__file__).resolve().parents[1]
#: Section ``space``, pixels, channels, images.
NETWORKS = {
    "13 blocks, 16 wide, 17 tokens": (
        {"preset": "small", "embed_dim": [16], "depth": [13], "num_heads": [1], "mlp_ratio": [1.0], "head_dim": 8}
        | {"patch_size": 8},
        (32, 3, 4),
    ),
    "a network of the default run": ({"preset": "digits"}, (8, 1, 64)),
    "6 blocks, 192 wide, 65 tokens": (
        {"preset": "image32", "patch_size": 4, "embed_dim": [192], "depth": [6], "num_heads": [3]},
        (32, 3, 64),
    ),
}
#: Operations that start no kernel.
VIEWS = {"view", "_unsafe_view", "_reshape_alias", "transpose", "t", "permute", "expand", "slice", "select", "detach"}
VIEWS |= {
    "squeeze",
    "unsqueeze",
    "as_strided",
    "split",
    "split_with_sizes",
    "unbind",
    "alias",
    "chunk",
    "narrow",
    "lift",
}
VIEWS |= {"lift_fresh", "unfold", "diagonal", "empty", "empty_strided", "empty_like", "new_empty", "resize_", "set_"}
VIEWS |= {"resolve_conj", "resolve_neg", "result_type", "is_nonzero", "flatten", "reshape", "unflatten", "mT"}


def steps(call: Callable[[], object]) -> int:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        call()
    operations = [event for event in profiler.events() if event.name.startswith("aten::")]
    inner = [e for e in operations if not any(child.name.startswith("aten::") for child in e.cpu_children)]
    return sum(event.name.removeprefix("aten::") not in VIEWS for event in inner)


def contenders(settings: dict, size: tuple[int, int, int], suite: list[str]) -> dict[str, Callable[[], object]]:
    pixels, channels, images = size
    space = make_space({"family": "autoformer", **settings}, pixels, channels, 10)
    arch = space.sample(np.random.default_rng(1))
    inputs = torch.randn(images, channels, pixels, pixels, generator=torch.Generator().manual_seed(0))
    model, targets, follows = build(space, arch, 0), torch.arange(images) % 10, context.follows

    def scored(names: list[str], by_hand: bool, **options) -> Callable[[], object]:
        def call() -> None:
            context.follows = follows if by_hand else lambda *_: False
            score(model, inputs, targets, names, macs=space.macs(arch), **options)

        return call

    return {
        "plain forward and backward": lambda: torch.autograd.grad(
            F.cross_entropy(model(inputs), targets), list(model.parameters())
        ),
        "build": lambda: build(space, arch, 0),
        "L-SWAG by autograd": scored(["lswag"], False),
        "L-SWAG by hand": scored(["lswag"], True),
        "L-SWAG by hand, tensor_cores": scored(["lswag"], True, tensor_cores=True),
        "suite by autograd": scored(suite, False),
        "suite by hand": scored(suite, True),
    }


def measured(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict]:
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - begin) * 1e3)
    rows = {}
    for name, call in calls.items():
        rows[name] = {"ms": round(statistics.median(times[name]), 2), "steps": steps(call)}
        if name.split(" by hand")[0] + " by autograd" in calls and "by hand" in name:
            ratios = np.divide(times[name], times[name.split(" by hand")[0] + " by autograd"])
            rows[name]["of_autograd"] = [round(float(q), 3) for q in np.quantile(ratios, [0.25, 0.5, 0.75])]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/engine/host.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    suite = yaml.safe_load((ROOT / "config.yaml").read_text())["score"]["proxies"]
    found = {}
    for name, (settings, size) in NETWORKS.items():
        found[name] = measured(contenders(settings, size, suite), options.rounds)
        for row, values in found[name].items():
            print(f"{name}   {row:32} {values}")
    write_json(options.output, {"networks": found, "rounds": options.rounds, "threads": 1, "facts": facts()})


if __name__ == "__main__":
    main()
