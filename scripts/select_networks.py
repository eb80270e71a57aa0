"""Name the winner and its controls: a random network of equal size, the largest of the budget, one of a file."""

from _stage import stage

with stage(snakemake) as run:
    from libranas.runs.stages.search import select

    given = (snakemake.input.get(name) for name in ("reference", "labelled"))
    select(run, snakemake.params.strategies, *given)
