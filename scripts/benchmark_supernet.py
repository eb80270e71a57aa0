"""Train a supernet and take its inherited-weight accuracies."""

from _stage import stage, use_threads

with stage(snakemake) as run:
    from libranas.runs.stages.labels import supernet

    use_threads(snakemake.threads)
    supernet(run, snakemake.params.labelled)
