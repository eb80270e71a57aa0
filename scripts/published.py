"""Join what was judged on each published table; the paper's Tables 1, 3 and 4 beside ours, and quality by labels."""

from _stage import stage

with stage(snakemake) as run:
    from libranas.runs.stages.published import join

    join(run, snakemake.params.tables)
