"""Prune the supernet of the DARTS space to one network, and give it the fitness of the other searches."""

from _stage import stage, use_threads

with stage(snakemake) as run:
    from libranas.runs.stages.search import prune

    use_threads(snakemake.threads)
    prune(run)
