"""Makes the benchmark of vision transformers on six kinds of images, ``benchmarks/vit-six``.

    python benchmarks/vit_six.py run IMAGES [--tasks cifar10 ...] [--cores 2] [--first 28]   # hours; it goes on
    python benchmarks/vit_six.py record

IMAGES holds ``cifar10_jpeg.npz``, ``clothing_small_224.tar`` and ``grocery_64.tar``, and the four files of
Fashion-MNIST in ``fashion-mnist`` (or /usr/share/datasets, where Debian puts them). `run` trains and scores the
networks with the workflow, task by task, each in ``results/vit-six-TASK`` with the settings of ``vit-six/all.yaml`` and
``vit-six/TASK.yaml``, and keeps every training in ``vit-six/trainings.jsonl`` with a key of all that it depends on.
`record` writes the tables that `libranas.published.vit_six` reads.
"""

import argparse
import json
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
from trained_search import configuration
from vit import keep_trainings, restore_trainings, score_table

from libranas import scores as store
from libranas.core.files import read_log, write_json, write_text
from libranas.published.transformers import FOLDER
from libranas.runs.folder import RunFolder
from libranas.training.recipe import ShortRecipe

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "benchmarks" / "vit-six"
RESULTS = ROOT / "results"
TASKS = ("cifar10", "fashion", "digits", "sphere", "grocery", "clothing")
KEPT = HERE / "trainings.jsonl"
#: What a run makes.
TARGETS = ("benchmark_train", "layers")
#: Proxies that are kept layer by layer, too.
LAYERS = ("lswag_lambda", "lswag_psi")


def presets(task: str) -> list[Path]:
    return [HERE / "all.yaml", HERE / f"{task}.yaml"]


def linked(archive: Path, folder: Path, splits: dict[str, str]) -> Path:
    """Unpack a tar of images, and give its splits other names: those of one name are joined."""
    if folder.exists():
        return folder
    unpacked = folder.with_name(f"{folder.name}-unpacked")
    with tarfile.open(archive) as tar:
        tar.extractall(unpacked, filter="data")
    building = folder.with_name(f"{folder.name}-building")
    for old, new in splits.items():
        for path in sorted(unpacked.glob(f"**/{old}/*/*")):  # the tar may have a folder around
            link = building / new / path.parent.name / f"{old}-{path.name}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(path.resolve())
    return building.rename(folder)


def data_path(task: str, images: Path) -> Path | None:
    """Where the images of a task are, in the layout that its adapter reads."""
    if task in ("cifar10", "sphere"):
        return images / "cifar10_jpeg.npz"
    if task == "fashion":
        ours = images / "fashion-mnist"
        return ours if ours.exists() else Path("/usr/share/datasets/fashion-mnist")
    if task == "grocery":  # its few validation images say little: the test images judge
        return linked(images / "grocery_64.tar", RESULTS / "images" / task, {"train": "train", "test": "val"})
    if task == "clothing":
        every = dict.fromkeys(("train", "test"), "train")
        return linked(images / "clothing_small_224.tar", RESULTS / "images" / task, every)
    return None


def run_task(task: str, images: Path, cores: int, first: int | None) -> None:
    """Train the networks on one task, all or the `first` ones once, and score all; goes on from the kept trainings."""
    run = RunFolder(RESULTS / f"vit-six-{task}", configuration(presets(task)))
    restore_trainings(run, KEPT)
    path = data_path(task, images)
    setting = [f"data={json.dumps({'path': str(path.resolve())})}"] if path else []
    if first:
        setting += [f"benchmark={json.dumps({'count': first, 'repeated': {'count': 0}})}", "libra={calibration: 10}"]
    files = list(map(str, presets(task)))
    command = [sys.executable, "-m", "snakemake", "--cores", str(cores), *TARGETS, "--configfile", *files]
    try:
        subprocess.run([*command, "--config", "device=cpu", *setting], cwd=ROOT, check=True)
    finally:
        print(f"{task}: {keep_trainings(run, KEPT)} trainings kept", flush=True)


def trainings_of(run: RunFolder) -> pd.DataFrame:
    """The kept trainings of a run: those with its key, of its networks."""
    recipe = ShortRecipe(**run.config["benchmark"]["recipe"])
    key = run.key("benchmark", recipe, run.config["seed"], "cpu")
    known = pd.DataFrame(read_log(KEPT))
    own = known[(known["key"] == key) & known["arch"].isin(set(run.ids))].rename(columns={"arch": "id"})
    place = pd.Series(range(len(run.ids)), run.ids)
    return own.sort_values(["id", "seed"], key=lambda c: c.map(place) if c.name == "id" else c)


def record(tasks: list[str]) -> None:
    """Write the files of the package: ``networks.csv`` (architectures), ``trainings.csv`` (accuracy of every training),
    ``scores.csv`` (every proxy on the images of every task, higher = better; those ending in ``_window`` are of the
    label-free layer window), ``about.json`` (space, recipes, conditions) and ``TASK.h5`` (L-SWAG, layer by layer)."""
    about: dict = {"tasks": {}}
    networks, trainings, scored = {}, [], []
    for task in tasks:
        run = RunFolder(RESULTS / f"vit-six-{task}", configuration(presets(task)))
        scores, manifest = store.read(run.path("scores")), run.manifest
        store.write(FOLDER / f"{task}.h5", replace(scores, proxies={name: scores.proxies[name] for name in LAYERS}))
        networks |= {arch.id: arch.json for arch in run.archs()}
        trainings.append(trainings_of(run).assign(task=task))
        scored.append(score_table(scores, run).assign(task=task).set_index("task", append=True).swaplevel())
        about["tasks"][task] = {
            "classes": len(manifest["classes"]),
            "images": {split: found["count"] for split, found in manifest["splits"].items()},
            "content_sha256": manifest["content_sha256"],
            "recipe": run.config["benchmark"]["recipe"],
        }
    about |= {
        **{name: run.config[name] for name in ("seed", "space", "budget")},
        "image_size": manifest["image_size"],
        "channels": manifest["channels"],
        "device": "cpu",
        "calibration_images": run.config["data"]["calibration"],
        "facts": scores.provenance["parts"][0],
    }
    table = pd.DataFrame({"id": networks.keys(), "architecture": networks.values()})
    write_text(FOLDER / "networks.csv", table.to_csv(index=False))
    columns = ["task", "id", "seed", "accuracy"]
    write_text(FOLDER / "trainings.csv", pd.concat(trainings)[columns].to_csv(index=False, float_format="%.6g"))
    write_text(FOLDER / "scores.csv", pd.concat(scored).to_csv(float_format="%.6g"))
    write_json(FOLDER / "about.json", about)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("run", "record"))
    parser.add_argument("images", type=Path, nargs="?")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--first", type=int, metavar="N", help="train so many networks, once: something on every task")
    arguments = parser.parse_args()
    if arguments.part == "run":
        for task in arguments.tasks:
            run_task(task, arguments.images, arguments.cores, arguments.first)
    else:
        record(arguments.tasks)


if __name__ == "__main__":
    main()
