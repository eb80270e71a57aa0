"""Draw the sample of architectures, or take it from a table of accuracies, and assign shards."""

import numpy as np
import pandas as pd
from _stage import budget_of, space_of, stage

with stage(snakemake) as log:
    from libranas.core.files import read_json, write_text
    from libranas.core.random import stream_seed
    from libranas.core.shards import shard_of
    from libranas.labels.table import read_table
    from libranas.spaces import Sampler

    space = space_of(snakemake, read_json(snakemake.input.manifest))
    settings = snakemake.params.sample
    rng = np.random.default_rng(stream_seed(snakemake.params.seed, "sample"))
    if snakemake.input.table:
        listed = list(read_table(snakemake.input.table[0], space, **snakemake.params.columns)["arch"])
        archs = [listed[i] for i in rng.permutation(len(listed))[: settings["count"]]]
    else:
        archs = Sampler(space, budget_of(snakemake), rng).take(settings["count"])
    table = pd.DataFrame(
        [(a.id, space.params(a), space.macs(a), shard_of(a.id, settings["shards"]), a.json) for a in archs],
        columns=["id", "params", "macs", "shard", "architecture"],
    )
    if table["id"].duplicated().any():
        raise RuntimeError("two architectures share an id")
    write_text(snakemake.output.archs, table.to_csv(index=False))
    log.info(
        "%d architectures of %.3g, %d to %d parameters", len(archs), space.size(), *np.sort(table["params"])[[0, -1]]
    )
