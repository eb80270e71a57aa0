"""Train a part of the networks that a round of guided search proposes."""

from _stage import stage, use_threads

with stage(snakemake) as run:
    from libranas.runs.stages.guided import train

    use_threads(snakemake.threads)
    train(run, int(snakemake.wildcards.round), int(snakemake.wildcards.shard), snakemake.params.shards)
