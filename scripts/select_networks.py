"""Name the winner and its controls: a random network of equal size and the largest one of the budget."""

import pandas as pd
from _stage import space_of, stage

with stage(snakemake) as log:
    from libranas import search
    from libranas.files import read_json, write_json
    from libranas.spaces import Budget

    p = snakemake.params
    space = space_of(snakemake, read_json(snakemake.input.manifest))
    histories = dict(zip(p.strategies, map(pd.read_csv, snakemake.input.histories), strict=True))
    selected = search.select(histories, space, Budget.from_settings(p.budget), p.seed)
    write_json(snakemake.output.selected, selected)
    for role, entry in selected.items():
        log.info("%s: %d parameters, %s", role, entry["params"], entry["architecture"])
