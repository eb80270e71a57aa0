"""Prepare the data set: packed images, manifest, calibration batch."""

from _stage import stage

with stage(snakemake) as run:
    from libranas.runs.stages.inputs import prepare

    prepare(run, snakemake.threads, snakemake.params.files)
