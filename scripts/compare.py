"""Compare the winner with its controls over the seeds."""

import pandas as pd
from _stage import stage

with stage(snakemake) as log:
    from libranas.core.files import read_json, write_json, write_text
    from libranas.core.provenance import facts
    from libranas.report.comparison import compare_runs

    runs = [read_json(path) for path in snakemake.input.metrics]
    summary = compare_runs(runs, read_json(snakemake.input.selected))
    curves = pd.DataFrame([{"role": r["role"], "seed": r["seed"], **epoch} for r in runs for epoch in r["history"]])
    write_json(snakemake.output.summary, {**summary, "facts": facts()})
    write_text(snakemake.output.curves, curves.to_csv(index=False))
    log.info(summary["verdict"])
