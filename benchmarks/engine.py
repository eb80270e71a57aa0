"""Speed and memory of the scoring engine, as multiples of one plain forward and backward.

    python benchmarks/engine.py [--quick] [--device cpu|cuda] [--output FILE.json]

Everything is timed in one process, in rounds: every contender runs once a round, each round begins at another one,
and a ratio is taken between two times of the same round. Before anything is timed, the Lambda of every layer must be
the same from the engine, from ``torch.func.vmap`` and from a loop. Peak memory comes from the first call in a fresh
process. The README beside this file says what is compared.
"""

import argparse
import contextlib
import copy
import functools
import gc
import importlib.util
import io
import json
import os
import re
import shlex
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.func import functional_call, grad, vmap

import libranas
from libranas import networks as nets
from libranas.config.checks import checked
from libranas.core.provenance import facts
from libranas.core.scorecard import ScoreCard
from libranas.spaces import AutoFormerSpace, NASBench201Space, make_space
from libranas.zero_cost import registry as proxies

ROOT = Path(__file__).resolve().parents[1]
CLASSES = 10
#: Cell of the NAS-Bench-201 network: five 3x3 convolutions and one identity.
ARCH = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
#: Samples whose gradients vmap holds at a time.
VMAP_CHUNK = 16
#: Largest relative difference of a layer's Lambda between contenders, float32.
AGREEMENT = 1e-3
WINDOW = (0.6, 0.8)

PLAIN = "plain forward+backward"
LSWAG = "L-SWAG, Lambda and Psi, all layers"
WINDOWED = f"L-SWAG, layers of depth {WINDOW[0]} to {WINDOW[1]}"
SUITE = "default suite of the workflow"
EVERY = "all proxies"
LOOP = "loop over the units, Lambda alone"
VMAP = f"torch.func.vmap(grad), {VMAP_CHUNK} samples at a time, Lambda alone"
BUILD = "build and initialise a candidate"
CANDIDATE = "default suite on the candidate"

#: The most that a row may be, by network and row.
LIMITS = {
    ("vit", LSWAG): 1.1,
    ("vit", SUITE): 2.5,
    ("nb201", "pass data"): 2.2,
    ("nb201", SUITE): 4.0,
    ("small", SUITE): 4.0,
    ("vit", BUILD): 0.05,
}
MEMORY_LIMITS = {"pass data": 1.3}

NETS = ("vit", "nb201", "small")
#: (width, depth, heads) of the vision transformer, (channels, cells a stage) of the NAS-Bench-201 network, preset and
#: image size of a random AutoFormer, batch size.
#: ``tiny`` is what a memory measurement runs first, so that code loaded on first use is not counted.
SIZES = {
    "full": {"vit": (256, 12, 4), "nb201": (16, 5), "small": ("small", 224), "batch": 64},
    "quick": {"vit": (64, 3, 4), "nb201": (16, 1), "small": ("image32-patch8", 32), "batch": 32},
    "tiny": {"vit": (16, 1, 2), "nb201": (4, 1), "small": ("image32-patch8", 32), "batch": 8},
}


@dataclass(frozen=True)
class Task:
    """A network in its scoring mode and a class-balanced batch of N(0, 1) images, on one device.

    ``loss_units``: into how many equal pieces the batch is cut for the statistics of a gradient, as the engine does it:
    single samples, but micro-batches where batch normalisation couples the samples of a batch.
    """

    net: str
    title: str
    model: nn.Module
    inputs: torch.Tensor
    targets: torch.Tensor
    loss_units: int
    options: dict

    @property
    def layers(self) -> dict[str, nn.Parameter]:
        """The weights that proxies look at, by module name."""
        kinds = (nn.Linear, nn.Conv2d)
        return {name: m.weight for name, m in self.model.named_modules() if isinstance(m, kinds)}

    def score(self, names: list[str], **options) -> ScoreCard:
        return libranas.score(self.model, self.inputs, self.targets, proxies=names, **(self.options | options))


def make_task(net: str, size: str, device: str, arch: str = ARCH) -> Task:
    """The vision transformer (``vit``), the network of NAS-Bench-201 (``nb201``) or a random AutoFormer-Small
    (``small``) with its batch."""
    sizes, batch = SIZES[size], SIZES[size]["batch"]
    side = sizes["small"][1] if net == "small" else 32
    torch.manual_seed(0)
    inputs, targets = torch.randn(batch, 3, side, side), torch.arange(batch) % CLASSES
    if net == "vit":
        width, depth, heads = sizes["vit"]
        model = VisionTransformer(
            img_size=32, patch_size=4, embed_dim=width, depth=depth, num_heads=heads, mlp_ratio=4, num_classes=CLASSES
        ).eval()
        title = f"timm VisionTransformer, 32 px, patch 4, depth {depth}, width {width}, {heads} heads, batch {batch}"
        units, options = batch, {}
    elif net == "small":
        space = make_space({"family": "autoformer", "preset": sizes["small"][0]}, side, 3, CLASSES)
        arch = space.sample(np.random.default_rng(1))
        model = nets.build(space, arch, seed=0).eval()
        title = f"AutoFormer {sizes['small'][0]}, {side} px, batch {batch}, {arch.json}"
        units, options = batch, {}
    else:
        channels, cells = sizes["nb201"]
        space = NASBench201Space(image_size=32, classes=CLASSES, width=channels, cells=cells)
        model = nets.build(space, space.parse(arch), seed=0).train()
        title = f"NAS-Bench-201, C={channels}, N={cells}, 32 px, batch {batch}, {arch}"
        units, options = proxies.Options().pieces, {"features": model.features}
    return Task(net, title, model.to(device), inputs.to(device), targets.to(device), units, options)


def default_suite() -> tuple[list[str], dict]:
    """Proxies and engine options of the workflow's default configuration."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    score = checked(config)["score"]
    return score["proxies"], score["options"]


def passes() -> dict[str, list[str]]:
    """The engine's passes, each with all its proxies."""
    members: dict[str, list[str]] = {}
    for name in proxies.list_proxies():
        members.setdefault(proxies.get(name).run.name, []).append(name)
    return members


# -- contenders ------------------------------------------------------------------------------------------


def plain(task: Task) -> tuple[torch.Tensor, ...]:
    """Gradient of the mean cross-entropy at all parameters."""
    loss = F.cross_entropy(task.model(task.inputs), task.targets)
    return torch.autograd.grad(loss, list(task.model.parameters()))


class Sums:
    """Sums of |g| and of its square over units, for each layer: what Lambda needs, with no gradient kept."""

    def __init__(self, layers: dict[str, torch.Tensor]):
        self.first = {name: torch.zeros_like(w) for name, w in layers.items()}
        self.second = {name: torch.zeros_like(w) for name, w in layers.items()}
        self.units = 0

    def lambdas(self) -> dict[str, float]:
        """log sum 1 / std|g| of each layer over the weights whose std is above 1e-12 of its median."""
        values = {}
        for name, first in self.first.items():
            mean = first / self.units
            std = (self.second[name] / self.units - mean.square()).clamp(min=0).sqrt()
            values[name] = std[std > 1e-12 * std.median()].double().reciprocal().sum().log().item()
        return values


def loop(task: Task) -> dict[str, float]:
    """Lambda from one forward and backward a unit."""
    layers = task.layers
    sums = Sums(layers)
    batches = zip(task.inputs.chunk(task.loss_units), task.targets.chunk(task.loss_units), strict=True)
    for x, y in batches:
        gradients = torch.autograd.grad(F.cross_entropy(task.model(x), y), list(layers.values()))
        for name, g in zip(layers, gradients, strict=True):
            sums.first[name] += g.abs()
            sums.second[name] += g.square()
        sums.units += 1
    return sums.lambdas()


def vectorised(task: Task) -> dict[str, float]:
    """Lambda from per-sample gradients by vmap, summed up after each chunk: those of the whole batch need gigabytes."""
    layers = {name: w.detach() for name, w in task.layers.items()}
    others = {name: p.detach() for name, p in task.model.named_parameters()}

    def loss(weights, x, y):
        tensors = others | {f"{name}.weight": w for name, w in weights.items()}
        return F.cross_entropy(functional_call(task.model, tensors, (x[None],)), y[None])

    per_sample, sums = vmap(grad(loss), in_dims=(None, 0, 0)), Sums(layers)
    for x, y in zip(task.inputs.split(VMAP_CHUNK), task.targets.split(VMAP_CHUNK), strict=True):
        for name, g in per_sample(layers, x, y).items():
            sums.first[name] += g.abs().sum(0)
            sums.second[name] += g.square().sum(0)
        sums.units += len(x)
    return sums.lambdas()


def candidate(task: Task) -> nn.Module:
    """A member of an AutoFormer space with the vision transformer's width, depth and heads, on the task's device."""
    width, depth, heads = task.model.embed_dim, len(task.model.blocks), task.model.blocks[0].attn.num_heads
    space = AutoFormerSpace(
        (width,), (depth,), (heads,), (4.0,), head_dim=width // heads, image_size=32, patch_size=4, classes=CLASSES
    )
    return nets.build(space, space.extremes()[0], seed=0).to(task.inputs.device)


def engine_contenders(task: Task) -> dict[str, Callable[[], object]]:
    """Name to a call, for plain and the engine; the rows that memory is measured for are among them."""
    names, options = default_suite()
    calls = {
        PLAIN: lambda: plain(task),
        LSWAG: lambda: task.score(["lswag"]),
        WINDOWED: lambda: task.score(["lswag"], window=WINDOW),
    }
    for pass_, members in passes().items():
        calls[f"pass {pass_}"] = functools.partial(task.score, members)
    calls[SUITE] = lambda: task.score(names, **options)
    if task.net == "small":  # what else there is takes minutes each
        return {name: calls[name] for name in (PLAIN, LSWAG, SUITE)}
    calls[EVERY] = lambda: task.score(proxies.list_proxies())
    return calls


def other_contenders(task: Task) -> dict[str, Callable[[], object]]:
    """Name to a call, for what the engine is compared with and for candidates of a search."""
    calls = {} if task.net == "small" else {LOOP: lambda: loop(task)}
    if task.net == "vit":
        names, options = default_suite()
        network = candidate(task)
        calls[VMAP] = lambda: vectorised(task)
        calls[BUILD] = lambda: candidate(task)
        calls[CANDIDATE] = lambda: libranas.score(network, task.inputs, task.targets, proxies=names, **options)
    return calls


# -- peers' packages -------------------------------------------------------------------------------------


def naslib_measures(network: nn.Module, batches: list, device: torch.device) -> Iterator[tuple[str, Callable]]:
    from naslib.predictors.utils.pruners import measures, predictive

    for name in measures.available_measures:
        yield (
            name,
            functools.partial(
                predictive.find_measures_arrays,
                network,
                batches,
                ("random", 1, CLASSES),
                device,
                measure_names=[name],
                loss_fn=F.cross_entropy,
            ),
        )


def alethiometer_measures(network: nn.Module, batches: list, device: torch.device) -> Iterator[tuple[str, Callable]]:
    from alethiometer import calc_zc_metrics

    for name in ("grad_norm", "grasp", "nwot_relu", "snip", "synflow", "zen", "ntk", "tcet_snip_log"):
        yield name, functools.partial(calc_zc_metrics, [name], network, batches, device)


PEERS = {"naslib": naslib_measures, "alethiometer": alethiometer_measures}


def peer_contenders(task: Task) -> tuple[dict[str, Callable[[], object]], list[str]]:
    """What the installed packages can compute for this network, a call a measure, and sentences on the rest."""
    calls, notes = {}, []
    for package, measures in PEERS.items():
        if importlib.util.find_spec(package) is None:
            notes.append(f"{package}: not installed, not compared")
            continue
        # A copy: these packages change the network's mode and add attributes to it.
        network = copy.deepcopy(task.model)
        try:
            found = dict(measures(network, [(task.inputs, task.targets)], task.inputs.device))
        except Exception as error:
            notes.append(f"{package}: not compared, it does not import ({type(error).__name__}: {error})")
            continue
        for name, call in found.items():
            quiet = functools.partial(silenced, call)
            try:
                quiet()
            except Exception as error:  # whatever it is, the package cannot do this measure here
                reason = (str(error).splitlines() or [""])[0]
                notes.append(f"{package}: no {name} for this network ({type(error).__name__}: {reason})")
            else:
                calls[f"{package}: {name}"] = quiet
    return calls, notes


def silenced(call: Callable[[], object]) -> object:
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call()


# -- measuring -------------------------------------------------------------------------------------------


def timed(call: Callable[[], object], device: str) -> tuple[float, object]:
    """Seconds of a call and what it returned, garbage of earlier calls collected before."""
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    result = call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin, result


def agreement(results: dict[str, object]) -> dict[str, float]:
    """Largest relative difference of a layer's Lambda from the engine's, of every contender that computes it.

    Raises
    ------
    SystemExit
        If the layers are not the same or a difference is above :data:`AGREEMENT`.
    """
    card = results[LSWAG]
    ours = dict(zip(card.axes["layer"].names, card.scores["lswag_lambda"].components["lambda"], strict=True))
    largest = {}
    for name in (LOOP, VMAP):
        if name not in results:
            continue
        theirs = results[name]
        if set(ours) != set(theirs):
            raise SystemExit(f"{name}: not the engine's layers: {sorted(set(ours) ^ set(theirs))}. Nothing was timed.")
        difference = {layer: abs(ours[layer] - theirs[layer]) / abs(theirs[layer]) for layer in ours}
        worst = max(difference, key=lambda layer: np.nan_to_num(difference[layer], nan=np.inf))
        largest[name] = float(difference[worst])
        if not largest[name] <= AGREEMENT:
            raise SystemExit(
                f"{name}: Lambda of layer {worst} is {theirs[worst]}, from the engine {ours[worst]}. Nothing was timed."
            )
    return largest


def measure(task: Task, rounds: int, device: str) -> dict:
    """All contenders of one network: values checked, then `rounds` rounds; JSON-ready."""
    peers, notes = ({}, []) if task.net == "small" else peer_contenders(task)
    calls = engine_contenders(task) | other_contenders(task) | peers
    if task.net == "nb201":
        notes.append(
            "torch.func.vmap: not compared, per-sample gradients are not defined through batch normalisation in "
            f"training mode; the units of the engine and of the loop are {task.loss_units} micro-batches"
        )
    say(f"{task.net}: every contender once, not timed")
    results = {name: call() for name, call in calls.items()}
    differences = agreement(results)
    undefined = {
        name: {proxy: s.reason for proxy, s in card.scores.items() if s.reason}
        for name, card in results.items()
        if isinstance(card, ScoreCard)
    }
    del results
    load = [os.getloadavg()[0]]
    seconds, inside, names = [], [], list(calls)
    for r in range(rounds):
        say(f"{task.net}: round {r + 1} of {rounds}")
        start = r * len(names) // rounds
        times, by_pass = {}, {}
        for name in names[start:] + names[:start]:
            times[name], result = timed(calls[name], device)
            if isinstance(result, ScoreCard):
                by_pass[name] = {p: cost.seconds for p, cost in result.passes.items()}
            del result
        seconds.append(times)
        inside.append(by_pass)
    load.append(os.getloadavg()[0])
    return {
        "title": task.title,
        "parameters": sum(p.numel() for p in task.model.parameters()),
        "layers": len(task.layers),
        "lambda_largest_relative_difference": differences,
        "rows": time_rows(task.net, seconds),
        "notes": notes,
        "undefined": {name: reasons for name, reasons in undefined.items() if reasons},
        "load_before_and_after": load,
        "seconds": seconds,
        "seconds_by_pass": inside,
    }


def spread(what: str, values: list[float], base: list[float], at_most: float | None, of: str) -> dict:
    """A row of the table: median of `values`, and median and quartiles of their ratios to `base`, pair by pair."""
    low, middle, high = np.percentile(np.array(values) / np.array(base), (25, 50, 75)).tolist()
    return {
        "what": what,
        "median": float(np.median(values)),
        "ratio": middle,
        "ratio_quartiles": [low, high],
        "of": of,
        "at_most": at_most,
    }


def time_rows(net: str, seconds: list[dict[str, float]]) -> list[dict]:
    """A row a contender, and one for all measures of a peer's package together."""
    columns = {name: [times[name] for times in seconds] for name in seconds[0]}
    for package in PEERS:
        own = [values for name, values in columns.items() if name.startswith(f"{package}: ")]
        if own:
            columns[f"{package}: these {len(own)}, one after the other"] = np.sum(own, axis=0).tolist()
    rows = []
    for name, values in columns.items():
        of = CANDIDATE if name == BUILD else PLAIN
        rows.append(spread(name, values, columns[of], LIMITS.get((net, name)), of))
    return rows


# -- memory ----------------------------------------------------------------------------------------------

MEMORY = (PLAIN, "pass data", LSWAG)


def resident(which: str) -> int:
    """``VmRSS`` (now) or ``VmHWM`` (most since the last reset) of this process in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{which}:\s+(\d+) kB", status).group(1)) * 1024


def peak_of(contender: str, args: argparse.Namespace) -> int:
    """Most bytes held during the first call of `contender` beyond those held before it; for a fresh process.

    Not the second call: memory that a process has freed often stays resident, and would be missing from the rise.
    """
    engine_contenders(make_task(args.net, "tiny", args.device, args.arch))[contender]()
    call = engine_contenders(make_task(args.net, args.size, args.device, args.arch))[contender]
    gc.collect()
    if args.device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from here
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before


def memory(net: str, args: argparse.Namespace) -> dict:
    """Peak bytes of the rows in :data:`MEMORY`, each call in a process of its own; JSON-ready."""
    if net == "small":
        return {"rows": [], "note": "peak memory: measured of the other networks"}
    if args.device == "cpu" and not Path("/proc/self/clear_refs").exists():
        return {"rows": [], "note": "peak memory: not measured, it needs Linux or a GPU"}
    peaks = []
    for repeat in range(args.memory_repeats):
        say(f"{net}: peak memory, {repeat + 1} of {args.memory_repeats}")
        peaks.append({})
        for contender in MEMORY:
            options = ["--net", net, "--device", args.device, "--arch", args.arch, "--threads", str(args.threads)]
            command = [sys.executable, __file__, *options, "--size", args.size, "--peak", contender]
            run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            peaks[-1][contender] = int(run.stdout.split()[-1])
    base = [p[PLAIN] for p in peaks]
    rows = [spread(c, [p[c] for p in peaks], base, MEMORY_LIMITS.get(c), PLAIN) for c in MEMORY]
    return {"rows": rows, "bytes": peaks}


# -- output ----------------------------------------------------------------------------------------------


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def table(report: dict) -> str:
    """The report as text."""
    about = report["conditions"]
    hardware = ", ".join(about["gpu"]) if report["device"] == "cuda" else f"{about['cpu']}, {about['cores']} cores"
    versions = ", ".join(f"{name} {about['packages'][name]}" for name in ("torch", "timm"))
    changed = " with uncommitted changes" if about["uncommitted_changes"] else ""
    lines = [
        f"{hardware}; {report['threads']} threads; {versions}; commit {about['commit']}{changed}",
        f"{report['rounds']} interleaved rounds; {report['data']}",
    ]
    if report["size"] != "full":
        lines.append("Small networks, to try this out: the limits are meant for the full size.")
    for net in report["nets"].values():
        lines += ["", net["title"], f"{'':<67}{'seconds':>9}{'ratio':>8}  {'quartiles':<18}at most"]
        lines += [line(row, f"{row['median']:.3f}") for row in net["rows"]]
        if net["memory"]["rows"]:
            lines.append(f"{'peak memory':<67}{'MiB':>9}")
            lines += [line(row, f"{row['median'] / 2**20:.0f}") for row in net["memory"]["rows"]]
        else:
            lines.append(net["memory"]["note"])
        lines += net["notes"]
        worst = ", ".join(f"{v:.0e} ({name})" for name, v in net["lambda_largest_relative_difference"].items())
        lines.append(f"largest relative difference of a layer's Lambda from the engine's: {worst}")
        for proxy, reason in net["undefined"].get(EVERY, {}).items():
            lines.append(f"undefined: {proxy}, {reason}")
    return "\n".join(lines)


def line(row: dict, amount: str) -> str:
    low, high = row["ratio_quartiles"]
    limit = "" if row["at_most"] is None else f"{row['at_most']:g}"
    name = row["what"] if row["of"] == PLAIN else f"{row['what']} (ratio to the next row)"
    return f"{name:<67}{amount:>9}{row['ratio']:>8.3g}  {f'{low:.3g} to {high:.3g}':<18}{limit}".rstrip()


def parsed(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small networks and two rounds, to try it out")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--output", type=Path, help="default: benchmarks/engine/DEVICE.json; with --quick or --net none"
    )
    parser.add_argument("--rounds", type=int, help="default: 5; with --quick 2")
    parser.add_argument("--threads", type=int, help="of PyTorch; default: its own choice")
    parser.add_argument("--net", choices=(*NETS, "all"), default="all")
    parser.add_argument("--arch", default=ARCH, help="cell of the NAS-Bench-201 network; default: %(default)s")
    # How this script measures memory: it runs itself.
    parser.add_argument("--peak", choices=MEMORY, help=argparse.SUPPRESS)
    parser.add_argument("--size", choices=("full", "quick"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch sees no GPU")
    args.size = args.size or ("quick" if args.quick else "full")
    args.rounds = (2 if args.quick else 5) if args.rounds is None else args.rounds
    if args.rounds < 1:
        parser.error("--rounds: at least 1")
    # what a GPU's allocator hands out does not vary
    args.memory_repeats = 1 if args.quick or args.device == "cuda" else 3
    if args.output is None and not args.quick and args.net == "all":
        args.output = ROOT / "benchmarks" / "engine" / f"{args.device}.json"
    return args


def main(argv: list[str]) -> None:
    args = parsed(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    args.threads = torch.get_num_threads()
    torch.backends.cudnn.allow_tf32 = False  # all contenders in the same arithmetic
    # vmap says that some attention kernel is not batched; that is part of what it costs.
    warnings.filterwarnings("ignore", message="There is a performance drop")
    if args.peak:
        print(peak_of(args.peak, args))
        return
    report = {
        "command": shlex.join(["python", "benchmarks/engine.py", *argv]),
        "conditions": facts(),
        "device": args.device,
        "threads": args.threads,
        "size": args.size,
        "rounds": args.rounds,
        "data": "class-balanced labels, images drawn from N(0, 1), float32 without TF32",
        "nets": {},
    }
    for net in NETS if args.net == "all" else (args.net,):
        # Memory first: this process holds little then, and the others have the machine for themselves.
        peaks = memory(net, args)
        measured = measure(make_task(net, args.size, args.device, args.arch), args.rounds, args.device)
        report["nets"][net] = measured | {"memory": peaks}
    print(table(report))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        say(f"written: {args.output}")


if __name__ == "__main__":
    main(sys.argv[1:])
