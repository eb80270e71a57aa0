"""A small vision transformer, trained from scratch on 3,068 photographs of clothes, and a linear probe on raw pixels.

    python benchmarks/clothing_training.py clothing_small_224.tar                 # three seeds, then the test images
    python benchmarks/clothing_training.py clothing_small_224.tar --try lr=0.002 # one seed, validation images only

What is fixed below was chosen on the 341 validation images, by trainings that ``training/clothing-tried.jsonl`` lists
(others were stopped early), before the 372 test images were looked at. The probe is scikit-learn's logistic regression
on standardised pixels, its penalty and the size of its images chosen on the validation images too; both are fitted on
the training images alone. Killed, the same command goes on. Writes ``benchmarks/training/clothing.json``.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import timm
import torch
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import libranas.networks.timm_models  # noqa: F401 - registers our networks with timm
from libranas.core.files import write_json
from libranas.core.provenance import digest, facts
from libranas.core.stats import mean_interval
from libranas.data.adapters.folder import folder
from libranas.data.decode import decode
from libranas.training.images import ArrayImages
from libranas.training.recipe import make_recipe
from libranas.training.results import outcome
from libranas.training.settings import Settings
from libranas.training.trainer import Training
from libranas.training.transforms import Look

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "benchmarks" / "training"
SIZE = 48
NETWORK = {
    "model_name": "libranas_autoformer",
    "patch_size": 8,
    "embed_dim": 96,
    "num_heads": [3] * 6,
    "mlp_ratio": [4.0] * 6,
    "head_dim": 32,
    "max_relative_position": 5,
    "init_std": 0.1,
}
RECIPE = {
    "base": "small-images",
    "epochs": 60,
    "batch_size": 64,
    "warmup_epochs": 5,
    "crop_padding": 6,
    "lr": 0.002,
    "mix_prob": 0.0,
    "erasing": 0.0,
    "auto_augment": None,
    "drop_path": 0.1,
}
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2)
PROBE_SIZES = (16, 32, 48)


def photographs(path: Path, size: int) -> dict[str, ArrayImages]:
    """The splits in memory, scaled and cut to `size` pixels a side."""
    with folder(path) as source:
        return {
            split: ArrayImages(
                np.stack([decode(item.load(), size, 3) for item in items]).transpose(0, 3, 1, 2),
                [item.label for item in items],
                source.classes,
            )
            for split, items in source.splits.items()
        }


def train(images: dict, seed: int, recipe, network: dict, state: Path) -> tuple[Training, list[dict]]:
    torch.manual_seed(seed)
    model = timm.create_model(img_size=SIZE, num_classes=10, drop_path_rate=recipe.drop_path, **network)
    look = Look(SIZE, 3, (0.5,) * 3, (0.25,) * 3)
    place = state / digest(recipe, network, SIZE, seed)
    settings = Settings(place, seed=seed, key=digest(network, SIZE), restart_on_change=True)
    training = Training(model, images["train"], images["val"], look, recipe, settings)
    return training, training.fit(lambda r: print(f"seed {seed}, epoch {r['epoch'] + 1}: {r}", flush=True))


def pixels(images: ArrayImages) -> np.ndarray:
    return images.images_NSSC.reshape(len(images), -1).astype(np.float32)


def probe(path: Path) -> dict:
    """The linear classifier that is best on the validation images."""
    tried, best = [], None
    for size in PROBE_SIZES:
        images = photographs(path, size)
        for penalty in PENALTIES:
            model = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=2000))
            model.fit(pixels(images["train"]), images["train"].label_N)
            val = model.score(pixels(images["val"]), images["val"].label_N)
            tried.append({"size": size, "C": penalty, "val_accuracy": val})
            print(tried[-1], flush=True)
            if best is None or val > best[0]:
                best = val, model, images["test"], tried[-1]
    val, model, test, chosen = best
    return {"chosen": chosen, "tried": tried, "test_accuracy": model.score(pixels(test), test.label_N)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--try", nargs="*", dest="trial", metavar="KEY=VALUE", help="of the recipe or the network")
    parser.add_argument("--state", type=Path, default=ROOT / "results" / "clothing_training")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recipe, network = dict(RECIPE), dict(NETWORK)
    for pair in arguments.trial or []:
        key, value = pair.split("=")
        (network if key in network else recipe)[key] = yaml.safe_load(value)
    images = photographs(arguments.images, SIZE)
    if arguments.trial is not None:
        training, history = train(images, 100, make_recipe(recipe), network, arguments.state)
        line = {"recipe": recipe, "network": network, "size": SIZE, "val_accuracy": history[-1]["val_accuracy"]}
        with open(OUTPUT / "clothing-tried.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        return
    runs = []
    for seed in range(3):
        training, history = train(images, seed, make_recipe(recipe), network, arguments.state)
        test = outcome(training.evaluate(images["test"]), images["test"])
        runs.append({"seed": seed, "val_accuracy": history[-1]["val_accuracy"], **test})
    accuracy = mean_interval([run["top1"] for run in runs])
    result = {
        "test_accuracy": {"mean": accuracy.value, "low": accuracy.low, "high": accuracy.high},
        "probe": probe(arguments.images),
        "runs": runs,
        "parameters": sum(p.numel() for p in training.network().parameters()),
        "network": network,
        "image_size": SIZE,
        "recipe": training.recipe.to_dict(),
        "images": {split: len(found) for split, found in images.items()},
        "facts": facts(),
    }
    write_json(OUTPUT / "clothing.json", result)
    print(json.dumps({k: result[k] for k in ("test_accuracy", "probe", "parameters")}, indent=2))


if __name__ == "__main__":
    main()
