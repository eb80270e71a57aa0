"""Speed of the final training: against a bare loop, of its parts, and with two processes instead of one.

    python benchmarks/training.py                                     # CPU; writes benchmarks/training/cpu.json
    python benchmarks/training.py --images clothing.tar               # also from real JPEG files
    python benchmarks/training.py --device cuda --images /data/imagenet/train --workers 12 --peak-tflops 989
    python benchmarks/training.py --timm-train ~/pytorch-image-models/train.py --images /data/imagenet/train

``loop``
    This package's loop and a bare PyTorch loop (data loader, forward, loss, backward, clipping, AdamW) with the same
    network, images, transforms and batch, in turns in one process. A ratio is that of two neighbouring segments; the
    median counts. On a CPU also in CPU seconds, which other work on the machine disturbs less.
``timm``
    This package's loop and timm's own train.py, if you have it, in turns: the same timm model, class folders of images,
    batch and transforms.
``parts``
    The reading of images alone (DeiT's augmentation at 224 px), the network alone, and both.
``processes``
    One process and two (gloo on CPUs), one thread each, in turns.
``projection``
    On a GPU: AutoFormer-S at 224 px in bfloat16, the network alone and a training by its recipe, compiled; images
    a second, memory, share of the device's peak, and the hours that follow for 300 and 500 epochs of ImageNet-1k.
"""

import argparse
import itertools
import multiprocessing
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import timm
import torch
from timm.utils import dispatch_clip_grad
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from libranas.core.files import read_json, write_json
from libranas.core.meter import peak_memory
from libranas.core.provenance import facts
from libranas.data.adapters.folder import folder
from libranas.networks import build
from libranas.spaces import make_space
from libranas.training.bad_images import BadImages
from libranas.training.data_sets import ItemImages
from libranas.training.distributed import World
from libranas.training.images import ArrayImages
from libranas.training.loaders import training_loader
from libranas.training.order import Batches, Plan
from libranas.training.recipe import make_recipe
from libranas.training.settings import Settings
from libranas.training.trainer import Training
from libranas.training.transforms import Look, training_transform

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "benchmarks" / "training"
IMAGENET = 1_281_167
#: The published AutoFormer-S.
AUTOFORMER_S = {
    "embed_dim": 384,
    "depth": 13,
    "mlp_ratio": (3.0, 3.5, 3.0, 3.5, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 3.5, 4.0),
    "num_heads": (6, 6, 5, 7, 5, 5, 5, 6, 6, 7, 7, 6, 7),
}


class Bare(Dataset):
    """What a plain script has: transforms that end in a normalised tensor."""

    def __init__(self, images, recipe, look: Look):
        *steps, _ = training_transform(recipe, look).transforms
        self.images = images
        self.transform = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(look.mean, look.std)])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int):
        return self.transform(self.images.read(index)), int(self.images.label_N[index])


def bare_loop(model: nn.Module, images, recipe, look: Look, device: torch.device, workers: int) -> Iterator[None]:
    """Updates, one for each ``next``."""
    model = model.to(device).train()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, weight_decay=recipe.weight_decay)
    criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    loader = DataLoader(
        Bare(images, recipe, look),
        recipe.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        pin_memory=device.type == "cuda",
    )
    dtype = torch.bfloat16 if recipe.precision == "bfloat16" else None
    while True:
        for inputs, targets in loader:
            inputs, targets = inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)
            with torch.autocast(device.type, dtype, enabled=dtype is not None):
                loss = criterion(model(inputs), targets)
            loss.backward()
            dispatch_clip_grad(model.parameters(), recipe.clip_grad)
            optimizer.step()
            optimizer.zero_grad()
            yield


def clocks(device: torch.device) -> tuple[float, float]:
    """Wall clock and CPU seconds of this process; a GPU is waited for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter(), time.process_time()


def bare_segment(updates: int, *arguments) -> list[tuple[float, float]]:
    """The clocks after each of some updates of the bare loop."""
    device = arguments[4]
    return [clocks(device) for _ in itertools.islice(bare_loop(*arguments), updates)]


def our_segment(model, images, recipe, look, world: World, workers: int, **how) -> tuple[list, Training]:
    """The clocks after each update of one epoch of this package's loop."""
    with tempfile.TemporaryDirectory() as place:
        settings = Settings(Path(place), workers=workers, **how)
        training = Training(model, images, None, look, recipe, settings, world)
        update, times = training._update, []

        def timed(batches):
            update(batches)
            times.append(clocks(world.device))

        training._update = timed
        training.fit()
    return times, training


def seconds(times: list[tuple[float, float]], warmup: int) -> tuple[float, float]:
    """Wall and CPU seconds of an update, without the first ones."""
    (wall, cpu), (first_wall, first_cpu) = times[-1], times[warmup]
    count = len(times) - 1 - warmup
    return (wall - first_wall) / count, (cpu - first_cpu) / count


def quartiles(values: list[float]) -> dict:
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return {"median": middle, "low": low, "high": high, "values": values}


class Setting:
    """Network, images and recipe of the comparison; smaller on a CPU."""

    def __init__(self, device: torch.device, images: Path | None):
        gpu = device.type == "cuda"
        self.size, self.batch, self.updates, self.warmup = (224, 256, 60, 20) if gpu else (32, 64, 24, 4)
        settings = {"epochs": 1, "batch_size": self.batch, "hflip": True, "crop_padding": self.size // 8}
        self.recipe = make_recipe({**settings, "precision": "bfloat16" if gpu else "float32"})
        self.look = Look(self.size, 3, (0.5,) * 3, (0.25,) * 3)
        count = self.batch * self.updates
        if images:
            self.images = files(images, count)
        else:
            pixels = np.random.default_rng(0).integers(0, 256, (self.batch * 4, 3, self.size, self.size), np.uint8)
            self.images = Repeated(ArrayImages(pixels, np.arange(len(pixels)) % 10, list("0123456789")), count)

    def model(self) -> nn.Module:
        if self.size == 224:
            return autoformer_s(len(self.images.classes))
        return timm.create_model(
            "vit_tiny_patch16_224", img_size=32, patch_size=4, depth=6, num_classes=len(self.images.classes)
        )


class Repeated:
    """`count` images, made of fewer."""

    def __init__(self, images, count: int):
        self.images, self.count, self.classes = images, count, images.classes
        self.label_N = np.resize(images.label_N, count)

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return self.images.name(index % len(self.images))

    def read(self, index: int):
        return self.images.read(index % len(self.images))


def files(path: Path, count: int) -> Repeated:
    """Class folders or a tar of them, decoded when read. The adapter stays open until the end."""
    source = STACK.enter_context(folder(path))
    return Repeated(ItemImages(source.splits["train"], source.classes, 3), count)


def autoformer_s(classes: int) -> nn.Module:
    space = make_space({"family": "autoformer", "preset": "small"}, 224, 3, classes)
    arch = space.arch(*(AUTOFORMER_S[k] for k in ("embed_dim", "num_heads", "mlp_ratio")))
    return build(space, arch, 0, 0.1, fused=True)


# What is measured ---------------------------------------------------------------------------------------------------


def compare_loops(setting: Setting, world: World, workers: int, rounds: int) -> dict:
    """Both loops in turns; which begins alternates."""
    wall, cpu, speeds = [], [], {"ours": [], "bare": []}
    for number in range(rounds):
        found = {}
        for name in ("ours", "bare") if number % 2 else ("bare", "ours"):
            arguments = setting.model(), setting.images, setting.recipe, setting.look
            if name == "ours":
                times, _ = our_segment(*arguments, world, workers)
            else:
                times = bare_segment(setting.updates, *arguments, world.device, workers)
            found[name] = seconds(times, setting.warmup)
            speeds[name].append(setting.batch / found[name][0])
        wall.append(found["bare"][0] / found["ours"][0])
        cpu.append(found["bare"][1] / found["ours"][1])
        print(f"round {number + 1}: ours / bare {wall[-1]:.3f} (wall), {cpu[-1]:.3f} (CPU seconds)", flush=True)
    ratios = {"wall": quartiles(wall)} | ({"cpu_seconds": quartiles(cpu)} if world.device.type == "cpu" else {})
    return {"images_per_second": {k: quartiles(v) for k, v in speeds.items()}, "ours_over_bare": ratios}


def timm_segment(script: Path, path: Path, model: str, batch: int, updates: int, device: torch.device, workers: int):
    """Images a second that timm's train.py prints after each of some updates."""
    command = [
        sys.executable,
        script,
        "--data-dir",
        path,
        "--model",
        model,
        "--batch-size",
        batch,
        "--workers",
        workers,
    ]
    command += ["--opt", "adamw", "--lr", 1e-3, "--clip-grad", 1.0, "--epochs", 1, "--log-interval", 1]
    command += ["--device", device.type, *(["--amp", "--amp-dtype", "bfloat16"] if device.type == "cuda" else [])]
    speeds, printed = [], []
    with tempfile.TemporaryDirectory() as place:
        command = [*map(str, command), "--output", place]
        environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        for line in process.stdout:
            printed.append(line)
            if line.startswith("Train:") and (found := re.search(r"([\d.]+)/s", line)):
                speeds.append(float(found[1]))
            if len(speeds) == updates:
                break
        process.kill()
        process.wait()
    if len(speeds) < updates:
        raise SystemExit(
            f"{''.join(printed[-20:])}\n{' '.join(command)}\nended after {len(speeds)} of {updates} updates."
        )
    return speeds


def compare_timm(script: Path, path: Path, world: World, workers: int, rounds: int) -> dict:
    """timm's train.py and this package's loop in turns: one timm model, the same images, batch and transforms."""
    gpu = world.device.type == "cuda"
    name, batch, updates, warmup = (
        ("vit_small_patch16_224", 256, 60, 20) if gpu else ("vit_tiny_patch16_224", 16, 12, 3)
    )
    # timm's defaults: random resized crops, a flip, some jitter of colours, no mixing
    settings = {"epochs": 1, "batch_size": batch, "crop": "rrc", "hflip": True, "color_jitter": 0.4}
    recipe = make_recipe({**settings, "clip_grad": 1.0, "precision": "bfloat16" if gpu else "float32"})
    images, look = files(path, batch * updates), Look(224, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    speeds, ratios = {"ours": [], "timm": []}, []
    for number in range(rounds):
        for side in ("ours", "timm") if number % 2 else ("timm", "ours"):
            if side == "ours":
                model = timm.create_model(name, num_classes=len(images.classes))
                times, _ = our_segment(model, images, recipe, look, world, workers)
                speeds[side].append(batch / seconds(times, warmup)[0])
            else:
                printed = timm_segment(script, path, name, batch, updates, world.device, workers)
                speeds[side].append(statistics.harmonic_mean(printed[warmup + 1 :]))
        ratios.append(speeds["ours"][-1] / speeds["timm"][-1])
        print(f"round {number + 1}: ours / timm {ratios[-1]:.3f}", flush=True)
    return {
        "model": name,
        "images_per_second": {k: quartiles(v) for k, v in speeds.items()},
        "ours_over_timm": quartiles(ratios),
    }


def network_alone(
    model: nn.Module, batch: int, batches: int, warmup: int, device: torch.device, compiled=False
) -> float:
    """Images a second of forward and backward, the images already on the device; bfloat16 on a GPU."""
    model = model.to(device).train()
    if compiled:
        model.compile()
    inputs = torch.randn(batch, 3, 224, 224, device=device)
    targets = torch.zeros(batch, dtype=torch.int64, device=device)
    times = []
    for _ in range(batches):
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        model.zero_grad()
        times.append(clocks(device))
    return batch / seconds(times, warmup)[0]


def parts(path: Path, world: World, workers: list[int], batch: int, batches: int) -> dict:
    """Reading alone (by number of reading processes), the network alone, both; DeiT's recipe at 224 px."""
    recipe = make_recipe({"base": "deit300", "epochs": 1, "batch_size": batch, "repeats": 1, "warmup_epochs": 0})
    if world.device.type == "cpu":
        recipe = make_recipe({**recipe.to_dict(), "precision": "float32"})
    images, look = files(path, batch * batches), Look(224, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    plan = Plan(len(images), batch, 1, 1, 0)
    result: dict = {"batch": batch, "reading": {}}
    for count in workers:
        loader = training_loader(images, recipe, look, Batches(plan, range(1)), world.device, count, BadImages(None, 0))
        times = [clocks(world.device) for _ in loader]
        result["reading"][str(count)] = batch / seconds(times, 1)[0]
        print(f"reading with {count} processes: {result['reading'][str(count)]:.1f} images/s", flush=True)
    result["network"] = network_alone(autoformer_s(len(images.classes)), batch, batches, 1, world.device)
    print(f"the network alone, forward and backward: {result['network']:.2f} images/s", flush=True)
    times, _ = our_segment(autoformer_s(len(images.classes)), images, recipe, look, world, max(workers))
    result["both"] = batch / seconds(times, 1)[0]
    print(f"both: {result['both']:.2f} images/s", flush=True)
    return result


def _member(rank: int, size: int, port: int, batch: int, updates: int, place: Path) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    setting = Setting(torch.device("cpu"), None)
    world = World.from_environment("cpu")
    recipe = make_recipe({**setting.recipe.to_dict(), "batch_size": batch})
    times, _ = our_segment(setting.model(), setting.images, recipe, setting.look, world, 0)
    if world.first:
        write_json(place, batch / seconds(times, 2)[0])
    world.close()
    os._exit(0)


def compare_processes(rounds: int) -> dict:
    """Images a second of two processes and of one, with as many images a process, in turns."""
    ratios, speeds, fork = [], {"1": [], "2": []}, multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder_of_results:
        place = Path(folder_of_results, "speed.json")
        for number in range(rounds):
            for size in (1, 2) if number % 2 else (2, 1):
                with socket.socket() as free:
                    free.bind(("127.0.0.1", 0))
                    port = free.getsockname()[1]
                arguments = size, port, 64 * size, 24, place
                members = [fork.Process(target=_member, args=(rank, *arguments)) for rank in range(size)]
                for member in members:
                    member.start()
                for member in members:
                    member.join()
                speeds[str(size)].append(read_json(place))
            ratios.append(speeds["2"][-1] / speeds["1"][-1])
            print(f"round {number + 1}: two processes / one {ratios[-1]:.2f}", flush=True)
    return {"images_per_second": {k: quartiles(v) for k, v in speeds.items()}, "two_over_one": quartiles(ratios)}


def projection(path: Path | None, world: World, workers: int, peak_tflops: float | None) -> dict:
    """AutoFormer-S at 224 px on a GPU, synthetic and from files, compiled; and what follows for ImageNet-1k."""
    recipe = make_recipe({"base": "autoformer500", "epochs": 1, "batch_size": 1024, "warmup_epochs": 0})
    look = Look(224, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    pixels = np.random.default_rng(0).integers(0, 256, (512, 3, 224, 224), np.uint8)
    kinds = {
        "synthetic": Repeated(ArrayImages(pixels, np.arange(512) % 1000, [str(k) for k in range(1000)]), 40 * 1024)
    }
    if path:
        kinds["files"] = files(path, 40 * 1024)
    space = make_space({"family": "autoformer", "preset": "small"}, 224, 3, 1000)
    macs = space.macs(space.arch(*(AUTOFORMER_S[k] for k in ("embed_dim", "num_heads", "mlp_ratio"))))
    flop = 6 * macs  # of an image: a multiplication and an addition, forward and twice that backward
    result: dict = {"macs": macs, "network": {}}

    def share(speed: float) -> float | None:
        return speed * flop / (peak_tflops * 1e12) if peak_tflops else None

    for way in ("eager", "compiled", "compiled, one-hot positions"):
        model = autoformer_s(1000)
        for block in model.blocks:
            block.attn.one_hot_positions = "one-hot" in way
        speed = network_alone(model, 256, 50, 20, world.device, way.startswith("compiled"))
        result["network"][way] = {"images_per_second": speed, "share_of_peak": share(speed)}
        print("the network alone", way, result["network"][way], flush=True)
    for name, images in kinds.items():
        torch.cuda.reset_peak_memory_stats()
        model = autoformer_s(len(images.classes))
        times, training = our_segment(model, images, recipe, look, world, workers, micro_batch=256, compile=True)
        speed = training.plan.batch / seconds(times, 10)[0]
        hours = {epochs: epochs * IMAGENET / speed / 3600 for epochs in (300, 500)}
        result[name] = {
            "images_per_second": speed,
            "peak_bytes": peak_memory(world.device),
            "share_of_peak": share(speed),
            "hours_on_one": hours,
            "hours_on_eight_if_perfect": {epochs: value / 8 for epochs, value in hours.items()},
        }
        print(name, result[name], flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--images", type=Path, help="class folders of JPEG files, or a tar of them")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--timm-train", type=Path, metavar="train.py", help="timm's script, which its package lacks")
    parser.add_argument("--peak-tflops", type=float, help="bfloat16 peak of the GPU, dense")
    parser.add_argument("--only", choices=("loop", "timm", "parts", "processes", "projection"), action="append")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    world, gpu = World.from_environment(arguments.device), arguments.device == "cuda"
    path = OUTPUT / f"{arguments.device}.json"
    result = read_json(path) if path.exists() else {}

    def wanted(name: str) -> bool:
        return name in arguments.only if arguments.only else True

    conditions = {"device": str(world.device), "load": os.getloadavg(), "workers": arguments.workers, "facts": facts()}
    if wanted("loop"):
        found = compare_loops(Setting(world.device, None), world, arguments.workers, arguments.rounds)
        result["loop"] = {**found, "rounds": arguments.rounds, "conditions": conditions}
    if arguments.timm_train and arguments.images and wanted("timm"):
        found = compare_timm(arguments.timm_train, arguments.images, world, arguments.workers, arguments.rounds)
        result["timm"] = {**found, "rounds": arguments.rounds, "conditions": conditions}
    if arguments.images and wanted("parts"):
        size = {"batch": 256, "batches": 30} if gpu else {"batch": 8, "batches": 6}
        counts = sorted({1, arguments.workers // 2 or 1, arguments.workers or 1})
        result["parts"] = {**parts(arguments.images, world, counts, **size), "conditions": conditions}
    if not gpu and wanted("processes"):
        result["processes"] = {**compare_processes(arguments.rounds), "conditions": conditions}
    if gpu and wanted("projection"):
        found = projection(arguments.images, world, arguments.workers, arguments.peak_tflops)
        result["projection"] = {**found, "conditions": conditions}
    write_json(path, result)


if __name__ == "__main__":
    with ExitStack() as STACK:
        main()
