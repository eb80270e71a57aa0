"""Choose the networks of a guided search for the long training."""

from _stage import stage

with stage(snakemake) as run:
    from libranas.runs.stages.guided import choose_finalists

    choose_finalists(run, snakemake.params.shards, snakemake.params.finalists)
