"""Export the winner (the seed with the best validation accuracy) as a timm local-dir with a model card."""

from _stage import stage

with stage(snakemake) as run:
    from libranas.runs.stages.training import export

    export(run, snakemake.params.strategies)
