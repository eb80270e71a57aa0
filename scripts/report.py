"""Write the report."""

from pathlib import Path

from _stage import stage

with stage(snakemake) as log:
    from libranas.report.page import write_report

    command = Path(snakemake.params.command)
    write_report(
        snakemake.output.html,
        dict(snakemake.input.items()),
        snakemake.params.config,
        snakemake.params.strategies,
        command.read_text() if command.exists() else "(not recorded)",
    )
