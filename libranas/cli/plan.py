"""``libranas plan``: what a run will take, before it begins."""

import argparse
from pathlib import Path

from libranas.cli import positive
from libranas.core.provenance import cores
from libranas.core.text import text_table


def add(commands) -> None:
    command = commands.add_parser("plan", description=_plan.__doc__)
    command.set_defaults(run=_plan)
    command.add_argument("targets", nargs="*", metavar="TARGET", help="stages, as for snakemake (default: all)")
    command.add_argument("--cores", type=positive, default=cores(), help="default: all of this machine")
    command.add_argument("--configfile", nargs="+", type=Path, default=[], metavar="FILE", help="as for snakemake")
    command.add_argument("--config", nargs="+", default=[], metavar="KEY=VALUE", help="as for snakemake")


def _plan(arguments: argparse.Namespace) -> None:
    """Show the jobs that a run still has to do, and estimate minutes, disk and memory. Seconds of scores and trainings
    are measured on this machine, on images of noise; that takes a minute. Run it in the folder of the workflow."""
    from libranas.runs.plan import ask_snakemake, plan, workflow_config
    from libranas.runs.probe import Images, measure

    config = workflow_config(arguments.configfile, arguments.config)
    options = ["--cores", str(arguments.cores)]
    options += ["--configfile", *map(str, arguments.configfile)] if arguments.configfile else []
    options += ["--config", *arguments.config] if arguments.config else []
    jobs = ask_snakemake([*arguments.targets, *options])
    if not jobs:
        print("Nothing to do: everything is there.")
        return
    images = Images.of(config["data"], config["seed"])
    found = plan(config, jobs, images, measure(config, images, arguments.cores), arguments.cores)
    whole = sum(count * seconds for _, count, seconds in found.rules)
    rows = [
        (rule, str(count), _time(seconds), _time(count * seconds), f"{count * seconds / whole:.0%}")
        for rule, count, seconds in found.rules
    ]
    print(text_table(("stage", "jobs", "each", "together", "share"), rows, right={1, 2, 3, 4}))
    most = max(found.rules, key=lambda row: row[1] * row[2])[0]
    print(f"\nabout {_time(found.seconds)} with {arguments.cores} cores; {most} takes most of it")
    print(f"disk {found.disk / 1e9:.2g} GB, memory {found.memory / 1e9:.2g} GB")


def _time(seconds: float) -> str:
    """Write a duration in the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
