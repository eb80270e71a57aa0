"""Join the shards of the benchmark."""

from _stage import stage

with stage(snakemake) as run:
    from libranas.runs.stages.labels import join

    join(run, len(snakemake.input.shards))
