"""``libranas compare``: runs of the workflow side by side."""

import argparse
from pathlib import Path

from libranas.core.text import text_table


def add(commands) -> None:
    command = commands.add_parser("compare", description=_compare.__doc__)
    command.set_defaults(run=_compare)
    command.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run, such as results/digits")
    command.add_argument(
        "--output", type=Path, default="comparison", metavar="DIR", help="folder to write to (default: comparison)"
    )


def _compare(arguments: argparse.Namespace) -> None:
    """Set two or more runs side by side, finished or not: settings that differ, scores, labels, winners and their
    controls, costs. Writes a page that opens offline, and a CSV file for each of its tables."""
    from libranas.report.side_by_side import write_side_by_side
    from libranas.runs.side_by_side import read_runs, tables

    runs = read_runs(arguments.runs)
    found = tables(runs)
    page = write_side_by_side(arguments.output, found, [run.name for run in runs])
    print(text_table(("run", "lacking"), list(zip(found["runs"]["run"], found["runs"]["lacking"], strict=True))))
    print(f"\n{len(found['settings'])} settings differ. {page}")
