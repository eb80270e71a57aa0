"""Write the report."""

from pathlib import Path

from _stage import stage

with stage(snakemake):
    from libranas.report.page import write_report

    p, command = snakemake.params, Path(snakemake.params.command)
    said = command.read_text() if command.exists() else "(not recorded)"
    write_report(snakemake.output.html, dict(snakemake.input.items()), p.config, p.strategies, said, Path(p.times))
