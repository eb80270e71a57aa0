"""A small training for tests, in this process or in forked ones that can be killed."""

import multiprocessing
import os
import signal
import socket
import traceback
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from libranas.core.files import write_json
from libranas.core.progress import Stopped
from libranas.training.checkpoints import Checkpoints
from libranas.training.distributed import World
from libranas.training.images import ArrayImages, ImageSet
from libranas.training.recipe import TrainingRecipe, make_recipe
from libranas.training.settings import Settings
from libranas.training.trainer import Training
from libranas.training.transforms import Look
from libranas.training.weights import save_weights

#: Exit code of a process that was told to stop.
STOPPED = 75
LOOK = Look(16, 3, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
#: Everything that draws random numbers is on.
RANDOM = {
    "epochs": 3,
    "batch_size": 16,
    "lr": 3e-3,
    "warmup_epochs": 1,
    "mixup": 0.8,
    "cutmix": 1.0,
    "crop_padding": 2,
    "hflip": True,
    "auto_augment": "rand-m9-mstd0.5-inc1",
    "erasing": 0.5,
    "repeats": 2,
    "drop_path": 0.2,
    "ema": 0.9,
}


@pytest.fixture(autouse=True)
def one_thread():
    """For all tests of a module that imports this."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def images(count: int = 80, seed: int = 0, side: int = 16) -> ArrayImages:
    """Four classes: red, green, blue and grey noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    pixels = rng.integers(0, 120, (count, 3, side, side))
    for pixel, label in zip(pixels, labels, strict=True):
        pixel[label : label + 1] += 110
    return ArrayImages(pixels.astype(np.uint8), labels, ["red", "green", "blue", "grey"])


def image_set(count: int = 40, seed: int = 0) -> ImageSet:
    data = images(count, seed, 8)
    pixels = torch.from_numpy(np.ascontiguousarray(data.images_NSSC.transpose(0, 3, 1, 2)))
    return ImageSet(pixels, torch.from_numpy(data.label_N), (0.3,) * 3, (0.25,) * 3, classes=4)


def network(drop_path: float = 0.2, **arguments) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        size = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 4}
        return timm.create_model("vit_tiny_patch16_224", drop_path_rate=drop_path, **{**size, **arguments})


def training(folder: Path, recipe: TrainingRecipe | None = None, world=None, model=None, data=None, **how) -> Training:
    recipe = recipe or make_recipe(RANDOM)
    settings = Settings(folder, seed=how.pop("seed", 3), **{"log_steps": 2, **how})
    model = model or network(recipe.drop_path)
    return Training(model, data or images(), images(30, 1), LOOK, recipe, settings, world)


def weights(run: Training) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in run.network().state_dict().items()}


def steps(checkpoints: Checkpoints) -> list[int]:
    return [int(path.name.split("-")[1]) for path in checkpoints.paths()]


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _child(rank: int, size: int, port: int, folder: Path, recipe, how: dict) -> None:
    os.setpgid(0, 0)  # with its reading processes, to be killed together
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    code = 1
    try:
        world = World.from_environment("cpu")
        run = training(folder, recipe, world, **how)
        history = run.fit()
        if world.first:
            save_weights(folder / "final.safetensors", run.network())
            write_json(folder / "history.json", history)
        world.close()
        code = 0
    except Stopped:
        code = STOPPED
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)  # no clean-up of what was inherited from the tests


class Processes:
    """As many forked processes as `size`, training together in `folder`."""

    def __init__(self, folder: Path, size: int = 1, recipe=None, **how):
        fork, port = multiprocessing.get_context("fork"), free_port()
        self.members = [
            fork.Process(target=_child, args=(rank, size, port, folder, recipe, how)) for rank in range(size)
        ]
        for member in self.members:
            member.start()

    def wait(self, seconds: float = 900) -> list[int | None]:
        """Exit codes; None: still at work after this time."""
        for member in self.members:
            member.join(seconds)
        return [member.exitcode for member in self.members]

    def kill(self) -> None:
        for member in self.members:
            with suppress(ProcessLookupError):  # it has ended, or has no group yet
                os.killpg(member.pid, signal.SIGKILL)
            member.kill()

    def signal(self, number: int) -> None:
        """To all of them and their reading processes, as SLURM does."""
        for member in self.members:
            with suppress(ProcessLookupError):
                os.killpg(member.pid, number)
