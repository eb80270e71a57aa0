"""Judge the combiners, the parts of L-SWAG and the steps of LIBRA on one published table."""

from _stage import stage

with stage(snakemake) as run:
    from libranas.runs.stages.published import judge

    judge(run, snakemake.input.table, snakemake.input.scores or None)
