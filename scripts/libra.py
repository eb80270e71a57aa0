"""Choose the proxies to combine on the calibration architectures; judge every method on the others."""

from _stage import stage

with stage(snakemake) as run:
    from libranas.runs.stages.search import libra

    libra(run)
