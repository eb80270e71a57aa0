"""Measure on this machine what a run costs: the start of a job, a score, an image of a training."""

import multiprocessing
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import astuple, dataclass

import numpy as np

from libranas.core.files import user_path
from libranas.data.registry import DATA_SETS
from libranas.data.source import SPLITS
from libranas.data.splits import pinned_splits

#: Networks that are scored and trained, and updates of each.
NETWORKS, UPDATES = 4, 8
#: Processes that measure at the same time, as jobs do; more of them take memory and say the same.
PROCESSES = 4


@dataclass(frozen=True)
class Images:
    """How many images a run has, by split, and how many classes."""

    splits: dict[str, int]
    classes: int

    @classmethod
    def of(cls, settings: Mapping, seed: int) -> "Images":
        """Count the images that the section ``data`` of a configuration names, without decoding any."""
        path = user_path(settings["path"]) if settings["path"] else None
        with DATA_SETS[settings["adapter"]].open(path) as source:
            splits, _ = pinned_splits(source, dict(settings), seed)
            return cls({split: len(splits[split]) for split in SPLITS}, len(source.classes))


@dataclass(frozen=True)
class Costs:
    """Seconds of single things, and bytes.

    Attributes
    ----------
    start : of a job that needs torch, until its work begins
    score : all proxies of a network with one initialisation
    image : forward, backward and update of a short training, for one image
    params, memory : bytes of a network's weights; of a process that scores and trains
    """

    start: float
    score: float
    image: float
    params: float
    memory: float


def start_up() -> float:
    """Return the seconds that a process needs before it can train."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import libranas.training.in_memory, libranas.zero_cost.scorer"], check=True)
    return time.perf_counter() - begin


def measure(config: Mapping, images: Images, cores: int) -> Costs:
    """Measure with as many processes at once as a run has jobs (a GPU: one); means over them."""
    from libranas.networks.device import pick_device

    device = pick_device(config["device"])
    count = min(cores, PROCESSES) if device == "cpu" else 1
    with multiprocessing.get_context("spawn").Pool(count) as pool:
        found = pool.starmap(_measured, [(dict(config), images.classes, device, k) for k in range(count)])
    return Costs(start_up(), *np.mean([astuple(costs)[1:] for costs in found], axis=0))


def _measured(config: Mapping, classes: int, device: str, seed: int) -> Costs:
    """Score and train some networks on noise, on one thread."""
    import resource

    import torch

    from libranas.networks import build
    from libranas.spaces import Budget, Sampler, make_space
    from libranas.training.images import ImageSet
    from libranas.training.in_memory import ShortTraining
    from libranas.training.recipe import ShortRecipe
    from libranas.zero_cost.scorer import Readout, Scorer

    torch.set_num_threads(1)
    data, settings = config["data"], config["benchmark"]["recipe"] or {"epochs": 1}
    size, channels, rng = data["image_size"], data["channels"], np.random.default_rng(seed)
    space = make_space(config["space"], size, channels, classes)
    budget = Budget.from_settings({**config["budget"], "latency": None}, None)
    archs = Sampler(space, budget, rng).take(NETWORKS)
    recipe = ShortRecipe(**{**settings, "epochs": 1})
    count = recipe.batch_size * UPDATES
    shape = (max(count, data["calibration"], config["score"]["readout"]), channels, size, size)
    pixels, labels = rng.integers(0, 256, shape, dtype=np.uint8), np.arange(shape[0]) % classes
    train = ImageSet(torch.from_numpy(pixels), torch.from_numpy(labels), (0.5,) * channels, (0.25,) * channels, classes)
    batch = train.normalised(train.images_NCHW[: data["calibration"]], device), train.labels_N[: data["calibration"]]
    more = pixels[: config["score"]["readout"]].astype(np.float32), labels[: config["score"]["readout"]]
    readout = Readout("", lambda: more)
    scorer = Scorer(space, *(x.to(device) for x in batch), "", 0, config["score"]["options"], device, readout)
    seconds = {"score": [], "image": []}
    for arch in archs:
        begin = time.perf_counter()
        scorer.card(arch, 0, config["score"]["proxies"])
        seconds["score"].append(time.perf_counter() - begin)
        training = ShortTraining(build(space, arch, 0, fused=True), recipe, train, 0, device)
        begin = time.perf_counter()
        training.fit()
        seconds["image"].append((time.perf_counter() - begin) / (training.updates * training.batch_size))
    # The first network pays for what is loaded on first use.
    score, image = (float(np.mean(values[1:])) for values in seconds.values())
    params = float(np.mean([space.params(arch) for arch in archs])) * 4
    return Costs(0.0, score, image, params, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
