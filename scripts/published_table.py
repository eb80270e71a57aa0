"""Judge the combiners, the parts of L-SWAG and the steps of LIBRA on one published table."""

from _stage import stage

with stage(snakemake) as run:
    from libranas.runs.stages.published import judge

    task = snakemake.wildcards.table.partition("-")[2]
    judge(run, f"{snakemake.input.table}:{task}", snakemake.input.scores or None)
