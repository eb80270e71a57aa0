"""Score new candidates of a guided search, and choose those that a round trains."""

from _stage import stage, use_threads

if __name__ == "__main__":  # workers import this file too
    with stage(snakemake) as run:
        from libranas.runs.stages.guided import propose

        use_threads(1)  # more would change the last digits; search.workers are processes
        number, settings = int(snakemake.wildcards.round), snakemake.params
        propose(run, number, settings.trainings, settings.shards, snakemake.threads)
