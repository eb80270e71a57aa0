"""``libranas simulate``: label-efficient searches on a table of accuracies."""

import argparse
from pathlib import Path

from libranas.cli import count, positive
from libranas.core.files import write_text
from libranas.core.progress import progress
from libranas.core.text import text_table


def add(commands) -> None:
    command = commands.add_parser("simulate", description=_simulate.__doc__)
    command.set_defaults(run=_simulate)
    command.add_argument(
        "table", metavar="FILE[:TASK]", help="one row for each network: an accuracy, and scores or features"
    )
    command.add_argument("--scores", metavar="FILE", help="further scores of the same architectures")
    command.add_argument("--accuracy", metavar="COLUMN", help="default: accuracy, val_accuracy or val_accs")
    command.add_argument("--features", metavar="A,B,...", help="columns that describe the network; no scores")
    command.add_argument("--methods", metavar="A,B,...", help="default: all; see the documentation")
    command.add_argument("--labels", type=positive, default=100, help="accuracies a search may look at (default: 100)")
    command.add_argument("--runs", type=positive, default=20, help="searches with each method (default: 20)")
    command.add_argument("--seed", type=count, default=0, help="default: 0")
    command.add_argument("--output", type=Path, metavar="FILE.csv", help="write the numbers here, and a figure beside")


def _simulate(arguments: argparse.Namespace) -> None:
    """Search a table for its best network with few labels, many times, and show how far from the best each method ends.
    A training is looked up in the table."""
    from libranas.published.pool import read_pool
    from libranas.search.simulate import simulate

    names = {key: getattr(arguments, key) and getattr(arguments, key).split(",") for key in ("features", "methods")}
    pool = read_pool(arguments.table, arguments.accuracy, names["features"], arguments.scores)
    settings = arguments.labels, arguments.runs, arguments.seed
    result = simulate(pool, names["methods"], *settings, progress)
    rows = [
        (r.method, str(r.labels), *(f"{x:.4g}" for x in (r.regret, r.regret_low, r.regret_high, r.rank)))
        for r in result.itertuples()
    ]
    head = ("method", "labels", "regret", "2.5 %", "97.5 %", "rank")
    print(f"{len(pool)} networks; mean regret and median rank of {arguments.runs} searches\n")
    print(text_table(head, rows, right={1, 2, 3, 4, 5}))
    if arguments.output:
        from libranas.report.drawing import figure

        write_text(arguments.output, result.to_csv(index=False))
        write_text(
            arguments.output.with_suffix(".svg"), figure("regret by labels", lambda axes: draw(axes, result), 6, 3.6)
        )


def draw(axes, result) -> None:
    """Draw mean regret against labels, one line for each method."""
    from libranas.report.drawing import BLUE, GREEN, GREY, ORANGE, PURPLE, RED

    colours = iter((BLUE, GREEN, PURPLE, ORANGE, RED, GREY))
    for method, rows in result.groupby("method", sort=False):
        colour, labels = next(colours), rows["labels"]
        axes.plot(labels, rows["regret"], marker="o", markersize=3, color=colour, label=method)
        axes.fill_between(labels, rows["regret_low"], rows["regret_high"], color=colour, alpha=0.15, linewidth=0)
    axes.set(xlabel="labels", ylabel="regret", ylim=(0, None))
    axes.grid(axis="y")
    axes.legend()
