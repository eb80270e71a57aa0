"""Train the winner as a large training does, in many processes: across the nodes of the job, if there are several."""

from _stage import stage

with stage(snakemake) as run:
    from libranas.runs.stages.training import full_training

    full_training(run, snakemake.params.gpus, snakemake.threads)
