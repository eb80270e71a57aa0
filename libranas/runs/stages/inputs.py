"""Images, latencies and architectures: what all later stages work on."""

import logging
from dataclasses import asdict

import numpy as np
import pandas as pd

from libranas.core.files import write_json, write_text
from libranas.core.progress import progress
from libranas.core.provenance import facts
from libranas.core.random import stream_seed
from libranas.core.shards import shard_of
from libranas.labels.table import read_accuracy_table
from libranas.latency.table import Conditions
from libranas.runs.folder import RunFolder
from libranas.spaces import Sampler

log = logging.getLogger("libranas")


def prepare(run: RunFolder, threads: int = 1, files: str | None = None) -> None:
    """Prepare the data set: packed images, manifest, calibration batch. `files` is the state of its files."""
    from libranas.data.prepare import prepare as prepare_data

    folder = run.path("manifest").parent
    manifest = prepare_data(run.config["data"], folder, run.config["seed"], threads, progress, files)
    for warning in manifest["warnings"]:
        log.warning("%s", warning)
    log.info("%d classes: %s", len(manifest["classes"]), ", ".join(map(str, manifest["classes"][:20])))


def latency(run: RunFolder) -> None:
    """Measure the table of block latencies, and check it with whole networks."""
    from libranas.latency.measure import measure, timer

    settings = dict(run.config["latency"])
    held_out = settings.pop("held_out")
    conditions = Conditions(run.device, **settings)
    table, checked = measure(run.space, timer(conditions, progress), held_out, run.config["seed"])
    found = {"conditions": asdict(conditions), **table.to_dict(), "held_out": checked, "facts": facts()}
    write_json(run.path("latency"), found)
    errors = held_out, *(100 * checked[k] for k in ("median_error", "worst_error"))
    log.info("%d networks: median error %.1f %%, worst %.1f %%", *errors)
    if checked["median_error"] > 0.1:
        log.warning(
            "The table of latencies misses %d whole networks by %.1f %% (median; worst %.1f %%). Let nothing else run "
            "here while it is measured, and delete latency/table.json of the run to measure it again.",
            *errors,
        )


def sample(run: RunFolder) -> None:
    """Draw the sample of architectures from the space, or from a table of accuracies where the part of the
    configuration names one; assign each to a shard."""
    space, settings, labels = run.space, run.config["sample"], run.config.get("benchmark", {})
    rng = np.random.default_rng(stream_seed(run.config["seed"], "sample"))
    if labels.get("table") and labels.get("method", "table") == "table":
        known = list(read_accuracy_table(labels["table"], space, **labels["columns"])["arch"])
        archs = [known[i] for i in rng.permutation(len(known))[: settings["count"]]]
    else:
        archs = Sampler(space, run.budget, rng).take(settings["count"])
    table = pd.DataFrame(
        [(a.id, space.params(a), space.macs(a), shard_of(a.id, settings["shards"]), a.json) for a in archs],
        columns=["id", "params", "macs", "shard", "architecture"],
    )
    if table["id"].duplicated().any():
        raise RuntimeError("two architectures share an id")
    write_text(run.path("archs"), table.to_csv(index=False))
    sizes = np.sort(table["params"])[[0, -1]]
    log.info("%d architectures of %.3g, %d to %d parameters", len(archs), space.size(), *sizes)
