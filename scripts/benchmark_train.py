"""Train one shard of the benchmark's architectures from scratch, for a short time."""

from _stage import stage, use_threads

with stage(snakemake) as run:
    from libranas.runs.stages.labels import train_shard

    use_threads(snakemake.threads)
    train_shard(run, int(snakemake.wildcards.shard), snakemake.params.shards)
