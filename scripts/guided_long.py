"""Train a part of the finalists of a guided search as the winner will be."""

from _stage import stage, use_threads

with stage(snakemake) as run:
    from libranas.runs.stages.guided import train_long

    use_threads(snakemake.threads)
    train_long(run, int(snakemake.wildcards.shard), snakemake.params.shards)
