"""Merge the scored shards into one file; report what failed and what each proxy costs."""

from _stage import stage

with stage(snakemake) as run:
    from libranas.runs.stages.scores import merge

    merge(run, len(snakemake.input.shards))
