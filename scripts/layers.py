"""Read the label-free layer window off the gradient statistics and apply it to the scores."""

from _stage import stage

with stage(snakemake) as run:
    from libranas.runs.stages.scores import layers

    layers(run)
