"""Name the winner and its controls: a random network of equal size, the largest of the budget, one of a file."""

import pandas as pd
from _stage import space_of, stage

with stage(snakemake) as log:
    from libranas import search
    from libranas.files import read_json, write_json
    from libranas.network_files import one_network, read_file
    from libranas.spaces import Budget

    p = snakemake.params
    space = space_of(snakemake, read_json(snakemake.input.manifest))
    histories = dict(zip(p.strategies, map(pd.read_csv, snakemake.input.histories), strict=True))
    path = snakemake.input.reference
    reference = one_network(read_file(path), space, f"train.reference: {path}") if path else None
    selected = search.select(histories, space, Budget.from_settings(p.budget), p.seed, reference)
    write_json(snakemake.output.selected, selected)
    for role, entry in selected.items():
        log.info("%s: %d parameters, %s", role, entry["params"], entry["architecture"])
