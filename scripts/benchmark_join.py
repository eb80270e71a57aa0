"""Join the shards of the benchmark."""

import pandas as pd
from _stage import stage

with stage(snakemake) as log:
    from libranas.files import write_text

    table = pd.concat([pd.read_csv(path) for path in snakemake.input.shards], ignore_index=True)
    write_text(snakemake.output.accuracy, table.to_csv(index=False))
    log.info("%d trainings, accuracy %.3f to %.3f", len(table), table["accuracy"].min(), table["accuracy"].max())
