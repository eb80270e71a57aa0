"""Name the winner and its controls: a random network of equal size, the largest of the budget, one of a file."""

import pandas as pd
from _stage import budget_of, space_of, stage

with stage(snakemake) as log:
    from libranas.core.files import read_json, write_json
    from libranas.latency import measure as latency
    from libranas.latency.conditions import Conditions
    from libranas.latency.table import record
    from libranas.networks.device import pick_device
    from libranas.search.selection import select
    from libranas.spaces.file_formats import one_network, read_file

    p = snakemake.params
    space, budget = space_of(snakemake, read_json(snakemake.input.manifest)), budget_of(snakemake)
    histories = dict(zip(p.strategies, map(pd.read_csv, snakemake.input.histories), strict=True))
    measured = None
    if budget.clock:
        settings = {k: v for k, v in p.latency.items() if k != "held_out"}
        conditions = Conditions(pick_device(p.device), **settings)
        timed = latency.timer(conditions)
        measured = lambda arch: record(arch, timed(space, [arch])[0], budget.clock, conditions)  # noqa: E731
    path = snakemake.input.reference
    reference = one_network(read_file(path), space, f"train.reference: {path}") if path else None
    selected = select(histories, space, budget, p.seed, p.winner, p.objectives, measured, reference)
    write_json(snakemake.output.selected, selected)
    for role, entry in selected.items():
        log.info("%s: %d parameters, %s", role, entry["params"], entry["architecture"])
    if difference := selected["random"].get("params_difference"):
        log.warning(
            "No network of equal size was found for the random control; the nearest has %+.1f %% parameters.",
            100 * difference,
        )
