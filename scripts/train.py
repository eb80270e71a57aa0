"""Train one of the selected networks with one seed; test accuracy is measured once, at the end."""

from _stage import stage, use_threads

with stage(snakemake) as run:
    from libranas.runs.stages.training import train

    use_threads(snakemake.threads)
    train(run, snakemake.wildcards.role, int(snakemake.wildcards.seed), readers=snakemake.threads - 1)
