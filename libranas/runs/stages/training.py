"""Final training of the winner and its controls, their comparison, and the export of the winner."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.core.files import atomic_path, read_json, write_json, write_text
from libranas.core.provenance import facts
from libranas.report.comparison import compare_runs, scores_of
from libranas.runs.cluster import run_to_its_end, torchrun
from libranas.runs.folder import RunFolder
from libranas.spaces.file_formats import yaml_text
from libranas.training.recipe import make_recipe

log = logging.getLogger("libranas")


def train(run: RunFolder, role: str, seed: int, readers: int = 0) -> None:
    """Train and test one of the selected networks with one seed; `readers` processes read images for a GPU."""
    from libranas.training.weights import save_weights

    arch = Arch.from_json(read_json(run.path("selected"))[role]["architecture"])
    sets, searched = run.splits("train", "val", "test"), f"search/long-{arch.id}" if seed == 0 else None
    model, metrics = trained(run, arch, seed, f"train/{role}-{seed}", sets, readers, searched)
    if model is not None:
        save_weights(run.path("weights", role=role, seed=seed), model)
        write_json(run.path("metrics", role=role, seed=seed), {"role": role, "seed": seed, **metrics})
        log.info("%s: test accuracy %.4f", role, metrics["test_accuracy"])


def trained(
    run: RunFolder,
    arch: Arch,
    seed: int,
    state: str,
    sets: tuple,
    readers: int = 0,
    same: str | None = None,
) -> tuple:
    """Train a network by ``train.recipe``.

    Parameters
    ----------
    state : folder of checkpoints, below ``state``
    sets : images to train, validate and test with
    same : another folder below ``state`` in which this training may have been done; it goes on from there

    Returns
    -------
    the network (None in all processes but the first) and its metrics
    """
    from libranas.training.distributed import World
    from libranas.training.train_and_test import train_and_test

    recipe, world = make_recipe(run.config["train"]["recipe"]), World.from_environment(run.config["device"])
    # Networks that play the same role with the same seed see the same order of images.
    seeds = run.config["seed"], seed

    def say(epoch: dict) -> None:
        values = epoch["epoch"] + 1, recipe.epochs, epoch["loss"], epoch["val_accuracy"]
        log.info("epoch %d of %d: loss %.3f, validation accuracy %.4f", *values)

    key = run.key("train", arch.id, seeds, world.device.type)
    if same:
        world.first_does(lambda: _take_over(run.state(same), run.state(state), key))
    workers = readers if world.device.type == "cuda" else 0
    model, metrics = train_and_test(run.space, arch, sets, recipe, seeds, run.state(state), key, say, world, workers)
    return model if world.first else None, metrics


def _take_over(source: Path, target: Path, key: str) -> None:
    """Copy checkpoints, all or none, where there are none of the training of this key."""
    from libranas.training.checkpoints import Checkpoints

    source, target = source / "checkpoints", target / "checkpoints"
    own = Checkpoints(target).newest(lambda state: state["identity"]["network and data"] == key)
    if source.is_dir() and own is None:
        unfinished = target.with_name("copied")
        for folder in (unfinished, target):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, unfinished).rename(target)


def compare(run: RunFolder, roles: Sequence[str], seeds: int) -> None:
    """Compare the winner with its controls over the seeds."""
    trained = [read_json(run.path("metrics", role=role, seed=seed)) for role in roles for seed in range(seeds)]
    summary = compare_runs(trained, read_json(run.path("selected")))
    curves = pd.DataFrame([{"role": r["role"], "seed": r["seed"], **epoch} for r in trained for epoch in r["history"]])
    write_json(run.path("summary"), {**summary, "facts": facts()})
    write_text(run.path("curves"), curves.to_csv(index=False))
    log.info(summary["verdict"])


def export(run: RunFolder, strategies: Sequence[str]) -> None:
    """Export the winner (the seed with the best validation accuracy) as a timm local-dir with a model card."""
    from safetensors.torch import load_file

    from libranas.export.comparison import NotExported
    from libranas.export.formats import write_program
    from libranas.export.model_card import model_card
    from libranas.export.timm import export_timm
    from libranas.networks import build
    from libranas.training.results import percent
    from libranas.training.weights import save_weights

    config, manifest, space, summary = run.config, run.manifest, run.space, read_json(run.path("summary"))
    entry, winner = read_json(run.path("selected"))["winner"], summary["roles"]["winner"]
    recipe = make_recipe(config["train"]["recipe"])
    best, test, arch = winner["best_seed"], winner["test_accuracy"], Arch.from_json(entry["architecture"])
    model = build(space, arch, seed=0, fused=True, timm=True)
    model.load_state_dict(load_file(run.path("weights", role="winner", seed=best)))
    card = model_card(
        f"{config['run']}: winner",
        {"architecture": arch.json, "parameters": entry["params"], "multiply-accumulates of an image": entry["macs"]},
        {
            f"test accuracy, mean of {winner['seeds']} trainings": percent(test),
            f"of this training (seed {best}, the best on validation images)": f"{100 * test['values'][best]:.2f} %",
            "test images": winner["test_images"],
            "comparison": summary["verdict"],
        },
        {
            "data set": manifest["source"] or manifest["adapter"],
            "images": {split: found["count"] for split, found in manifest["splits"].items()},
            "size": [manifest["channels"], manifest["image_size"], manifest["image_size"]],
            "classes": manifest["classes"],
            "SHA-256": manifest["content_sha256"],
        },
        {**recipe.to_dict(), "seed": config["seed"]},
        summary["facts"],
        scores_of([run.path("history", strategy=name) for name in strategies], entry["id"]),
        config["train"]["licence"],
    )
    extra = {f"{space.family}.yaml": yaml_text(space, arch)} if space.family in ("autoformer", "pit") else {}
    of_data = [manifest[key] for key in ("image_size", "classes", "mean", "std")]
    folder, tested = run.path("exported"), (recipe.crop_pct, recipe.test_interpolation)
    try:
        export_timm(model, folder, *of_data, card, extra, *tested, fresh=False)
        log.info("exported seed %d; it loads back with equal weights and logits", best)
    except NotExported as error:  # a network that a function of another package builds
        log.warning("%s", error)
        save_weights(folder / "model.safetensors", model)
        write_program(model, (manifest["channels"], *[manifest["image_size"]] * 2), folder / "model.pt2")


def full_training(run: RunFolder, gpus: int, threads: int) -> None:
    """Train the winner in many processes, across the nodes of the job; `gpus` and `threads` are of each node."""
    settings, folder, device = run.config["full_training"], run.state("full_training"), run.config["device"]
    arguments = ["-m", "libranas", "train", "--recipe", settings["recipe"], "--model", str(run.path("exported"))]
    arguments += ["--data", settings["data"], "--output", str(folder), "--seed", str(run.config["seed"])]
    arguments += ["--device", device, "--restart-on-change", *map(str, settings["options"])]
    command = torchrun(arguments, settings["nodes"], settings["processes"], gpus, threads)
    log.info("%s", " ".join(command))
    if code := run_to_its_end(command):
        raise LibranasError(
            f"The training ended with exit code {code}; what it said is above.",
            f"Checkpoints are in {folder}: the same command goes on from the last one.",
        )
    for path in (run.path("full_result"), run.path("full_weights")):
        with atomic_path(path) as temporary:
            shutil.copyfile(Path(folder, path.name), temporary)
    shutil.copytree(folder / "export", run.path("full_export"))
