"""CPU time of the in-memory loop of short trainings against the loop of final training, on the digits of 8 x 8 pixels.

    python benchmarks/short_loop.py                                   # writes benchmarks/training/short_loop.json

Both train the same network of the default experiment with the same recipe (batches of 32, two epochs) on one thread, in
turns; which begins alternates. CPU seconds count, which other work on the machine disturbs less than wall time.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import yaml
from sklearn.datasets import load_digits

from libranas.core.files import write_json
from libranas.core.provenance import facts
from libranas.networks import build
from libranas.spaces import make_space
from libranas.training.images import ImageSet
from libranas.training.in_memory import ShortTraining
from libranas.training.recipe import ShortRecipe
from libranas.training.settings import Settings
from libranas.training.trainer import Training
from libranas.training.transforms import Look

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 7


def short(model, recipe: ShortRecipe, images: ImageSet):
    return ShortTraining(model, recipe, images, seed=1).fit


def final(model, recipe: ShortRecipe, images: ImageSet):
    settings, look = Settings(Path(tempfile.mkdtemp()), seed=1), Look(8, 1, images.mean_C, images.std_C)
    return Training(model, images.for_final_training(), None, look, recipe.to_training_recipe(), settings).fit


def main() -> None:
    torch.set_num_threads(1)
    digits = load_digits()
    pixels = (digits.images[:1000, None] * 15).astype(np.uint8)
    images = ImageSet(torch.from_numpy(pixels), torch.from_numpy(digits.target[:1000]), (0.3,), (0.35,), 10)
    space = make_space(yaml.safe_load((ROOT / "config.yaml").read_text())["space"], 8, 1, 10)
    arch = space.sample(np.random.default_rng(0))
    result = {"network": arch.json, "images": len(images), "rounds": ROUNDS, "facts": facts()}
    for name, padding in {"plain": 0, "crop_padding": 1}.items():
        recipe = ShortRecipe(epochs=2, batch_size=32, lr=0.003, crop_padding=padding)
        speeds: dict[str, list[float]] = {"short": [], "final": []}
        for number in range(ROUNDS):
            for loop in (short, final) if number % 2 else (final, short):
                fit = loop(build(space, arch, 0, fused=True), recipe, images)
                begin = time.process_time()
                fit()
                speeds[loop.__name__].append(2 * len(images) / (time.process_time() - begin))
        ratio = statistics.median(a / b for a, b in zip(speeds["short"], speeds["final"], strict=True))
        medians = {loop: statistics.median(values) for loop, values in speeds.items()}
        result[name] = {"images_per_cpu_second": medians, "short_over_final": ratio, "values": speeds}
        print(name, medians, f"short / final {ratio:.2f}", flush=True)
    write_json(ROOT / "benchmarks/training/short_loop.json", result)


if __name__ == "__main__":
    main()
