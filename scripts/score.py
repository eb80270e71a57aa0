"""Score one shard of the sample with all proxies and several initialisations."""

from _stage import stage, use_threads

with stage(snakemake) as run:
    from libranas.runs.stages.scores import score

    use_threads(snakemake.threads)
    score(run, int(snakemake.wildcards.shard))
