"""Write the report."""

from _stage import stage

with stage(snakemake) as log:
    from libranas.report import write_report

    write_report(
        snakemake.output.html,
        dict(snakemake.input.items()),
        snakemake.params.config,
        snakemake.params.strategies,
    )
