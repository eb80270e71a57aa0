"""Write the history of a guided search."""

from _stage import stage

with stage(snakemake) as run:
    from libranas.runs.stages.guided import conclude

    conclude(run, snakemake.params.shards, snakemake.params.long_shards)
