"""Take the accuracies of a table for the architectures of the sample."""

from _stage import stage

with stage(snakemake) as run:
    from libranas.runs.stages.labels import look_up

    look_up(run)
