"""Draw the sample of architectures, or take it from a table of accuracies, and assign shards."""

from _stage import stage

with stage(snakemake) as run:
    from libranas.runs.stages.inputs import sample

    sample(run)
