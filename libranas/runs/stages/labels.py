"""Accuracies for a part of the sample: trained from scratch, inherited from a supernet, or from a table."""

import logging
from collections.abc import Sequence

import pandas as pd

from libranas.core.arch import Arch
from libranas.core.files import write_json, write_text
from libranas.core.progress import progress
from libranas.core.provenance import facts
from libranas.labels.table import read_accuracies, read_accuracy_table
from libranas.runs.folder import RunFolder
from libranas.training.recipe import ShortRecipe

log = logging.getLogger("libranas")


def train_shard(run: RunFolder, shard: int, shards: int) -> None:
    """Train the labelled architectures of one of `shards` shards from scratch, for a short time."""
    settings = run.config["benchmark"]
    repeated, labelled = settings["repeated"], run.archs(count=settings["count"])
    often = {arch.id for arch in labelled[: repeated["count"]]}
    archs = labelled[shard::shards]  # as many for each, of the repeated ones too
    seeds = [max(settings["seeds"], repeated["seeds"] if arch.id in often else 0) for arch in archs]
    table = train_labels(run, archs, seeds, f"benchmark/train-{shard}.jsonl")
    write_text(run.path("accuracy_shard", shard=shard), table.to_csv(index=False))


def train_labels(run: RunFolder, archs: Sequence[Arch], seeds: Sequence[int], log_name: str) -> pd.DataFrame:
    """Train networks for a short time, those that no job of this run has trained; see
    :func:`libranas.labels.short_training.train_each`.

    Parameters
    ----------
    log_name : log of this job, below ``state``
    """
    from libranas.labels.short_training import train_each

    recipe, seed = ShortRecipe(**run.config["benchmark"]["recipe"]), run.config["seed"]
    path = run.state(log_name)
    others = {*run.state("benchmark").glob("train-*.jsonl"), *run.state("search").glob("labels-*.jsonl")} - {path}
    key = run.key("benchmark", recipe, seed, run.device)
    images = run.splits("train", "val")
    return train_each(run.space, archs, *images, recipe, seeds, seed, path, key, sorted(others), run.device, progress)


def join(run: RunFolder, shards: int) -> None:
    """Join the trainings of all shards."""
    table = read_accuracies(*(run.path("accuracy_shard", shard=k) for k in range(shards)))
    write_text(run.path("accuracy", method="train"), table.to_csv(index=False))
    log.info("%d trainings, accuracy %.3f to %.3f", len(table), table["accuracy"].min(), table["accuracy"].max())


def supernet(run: RunFolder, count: int) -> None:
    """Train a supernet and take the accuracies that the first `count` architectures inherit from it."""
    from libranas.labels.supernet import inherit, train_supernet

    recipe, seed = ShortRecipe(**run.config["benchmark"]["supernet"]), run.config["seed"]
    train, val = run.splits("train", "val")

    def say(epoch: dict) -> None:
        log.info("supernet: epoch %d of %d, loss %.3f", epoch["epoch"] + 1, recipe.epochs, epoch["loss"])

    folder, key = run.state("benchmark/supernet"), run.key("benchmark", recipe, seed, run.device)
    trained, history = train_supernet(run.space, train, recipe, seed, folder, key, run.device, say, progress)
    table = inherit(trained, run.archs(count=count), val, progress)
    write_text(run.path("supernet_history"), pd.DataFrame(history).to_csv(index=False))
    write_text(run.path("accuracy", method="supernet"), table.to_csv(index=False))


def look_up(run: RunFolder) -> None:
    """Take the accuracies of the sampled architectures from a table."""
    settings = run.config["benchmark"]
    table = read_accuracy_table(settings["table"], run.space, **settings["columns"])
    sampled = set(run.ids)
    table = table[table["id"].isin(sampled)]
    write_text(run.path("accuracy", method="table"), table[["id", "seed", "accuracy"]].to_csv(index=False))
    log.info("%d accuracies for %d sampled architectures", len(table), len(sampled))


def agree(run: RunFolder) -> None:
    """Measure how well from-scratch training and the supernet agree about the same architectures."""
    from libranas.labels.agreement import agreement

    trained, inherited = (read_accuracies(run.path("accuracy", method=name)) for name in ("train", "supernet"))
    params = pd.read_csv(run.path("archs"), index_col="id")["params"]
    result = agreement(trained, inherited, params, run.config["seed"])
    write_json(run.path("agreement"), {**result, "facts": facts()})
    log.info("Spearman %.2f on %d architectures", result["spearman"], result["n"])
