"""Zero-cost scores of the sample, and the label-free window of layers."""

import logging
from dataclasses import asdict

from libranas import scores as store
from libranas.core.files import write_json, write_text
from libranas.core.progress import progress
from libranas.runs.folder import RunFolder
from libranas.scores import layer_window

log = logging.getLogger("libranas")


def score(run: RunFolder, shard: int) -> None:
    """Score one shard of the sample with all proxies and several initialisations."""
    from libranas.scores.shard import score_shard

    settings, kept = run.config["score"], run.state(f"score/{shard}.jsonl")
    scores = score_shard(run.scorer(), run.archs(shard), settings["seeds"], settings["proxies"], kept, progress)
    store.write(run.path("shard", shard=shard), scores)


def merge(run: RunFolder, shards: int) -> None:
    """Merge the shards into one file; report what failed and what each proxy costs."""
    wanted = run.ids
    store.merge(run.path("scores"), [run.path("shard", shard=k) for k in range(shards)], wanted)
    scores = store.Blocks(run.path("scores"), components=())
    failures = store.check_failures(scores, run.config["score"]["max_failed"])
    costs = store.costs(scores)
    write_text(run.path("failures"), failures.to_csv(index=False))
    write_text(run.path("costs"), costs.to_csv(index=False))
    log.info("%d architectures x %d proxies", len(wanted), len(costs))


def layers(run: RunFolder) -> None:
    """Read the label-free layer window off the gradient statistics and apply it to the scores."""
    settings = run.config["layers"]
    scores = store.Blocks(run.path("scores"), layer_window.COMPONENTS)
    curve = layer_window.curve(scores, settings["bins"], settings["exclude"])
    choice = layer_window.choose_window(curve, settings["rule"], settings["fixed"])
    table = layer_window.table(scores, choice.window, settings["psi"])
    warnings = table.attrs["warnings"]
    for warning in warnings:
        log.warning(warning)
    write_text(run.path("curve"), curve.to_csv(index=False))
    write_json(run.path("window"), {**asdict(choice), "warnings": warnings})
    as_drawn = table.loc[run.ids]  # not as sharded
    write_text(run.path("table"), as_drawn.to_csv(float_format="%.17g"))
    log.info("layers in depth bins %d to %d of %d", choice.window.lo, choice.window.hi, choice.window.bins)
