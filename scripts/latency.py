"""Measure the table of block latencies, and check it with whole networks."""

from dataclasses import asdict

from _stage import space_of, stage

with stage(snakemake) as log:
    from libranas.core.files import read_json, write_json
    from libranas.core.progress import progress
    from libranas.core.provenance import facts
    from libranas.latency.conditions import Conditions
    from libranas.latency.measure import measure, timer
    from libranas.networks.device import pick_device

    settings = dict(snakemake.params.latency)
    held_out = settings.pop("held_out")
    space = space_of(snakemake, read_json(snakemake.input.manifest))
    conditions = Conditions(pick_device(snakemake.params.device), **settings)
    table, checked = measure(space, timer(conditions, progress), held_out, snakemake.params.seed)
    found = {"conditions": asdict(conditions), **table.to_dict(), "held_out": checked, "facts": facts()}
    write_json(snakemake.output.table, found)
    errors = held_out, *(100 * checked[k] for k in ("median_error", "worst_error"))
    log.info("%d networks: median error %.1f %%, worst %.1f %%", *errors)
    if checked["median_error"] > 0.1:
        log.warning(
            "The table of latencies misses %d whole networks by %.1f %% (median; worst %.1f %%). Let nothing else run "
            "here while it is measured, and delete latency/table.json of the run to measure it again.",
            *errors,
        )
