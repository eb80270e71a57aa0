"""Measure the table of block latencies, and check it with whole networks."""

from _stage import stage

with stage(snakemake) as run:
    from libranas.runs.stages.inputs import latency

    latency(run)
