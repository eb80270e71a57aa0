"""Compare the winner with its controls over the seeds."""

from _stage import stage

with stage(snakemake) as run:
    from libranas.runs.stages.training import compare

    compare(run, snakemake.params.roles, snakemake.params.seeds)
