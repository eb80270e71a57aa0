"""Run one search strategy with the fitness that LIBRA chose, under the budget."""

from _stage import stage, use_threads

if __name__ == "__main__":  # workers import this file too
    with stage(snakemake) as run:
        from libranas.runs.stages.search import search

        use_threads(1)  # more would change the last digits; search.workers are processes
        search(run, snakemake.wildcards.strategy, snakemake.threads)
