"""Measure how well from-scratch training and the supernet agree about the same architectures."""

from _stage import stage

with stage(snakemake) as run:
    from libranas.runs.stages.labels import agree

    agree(run)
