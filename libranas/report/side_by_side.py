"""The page of several runs side by side, in the look of the report."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from libranas.core.files import write_text
from libranas.report.drawing import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, figure
from libranas.report.page import _environment


class Part(NamedTuple):
    """A section of the page: its tables, by the names of :func:`libranas.runs.side_by_side.tables`."""

    title: str
    tables: tuple[str, ...]
    note: str
    absent: str


PARTS = (
    Part("Runs", ("runs",), "", ""),
    Part("Settings that differ", ("settings",), "", "All known settings are equal."),
    Part(
        "Winners and controls",
        ("networks", "winners_between"),
        "Test accuracy: mean over the seeds and 95 % t interval. Differences: winner of the run less that of the other "
        "run, with Welch's 95 % interval; only between runs of the same images whose networks were trained.",
        "No run has chosen networks yet.",
    ),
    Part(
        "Labels",
        ("labels", "labels_between"),
        "Accuracies after short training, of a supernet or a table. Spearman between the labels of two runs on the n "
        "networks that both have, with its 95 % bootstrap interval.",
        "No run has labels yet.",
    ),
    Part("Proxies chosen by LIBRA", ("combiners",), "Spearman on held-out architectures.", "No run came so far."),
    Part(
        "Scores",
        ("scores",),
        "Spearman between the scores of two runs on the n architectures that both scored.",
        "No two runs have scores.",
    ),
    Part("Cost, minutes", ("costs",), "Time of all jobs of a kind together.", "No run has kept its times."),
)
#: Table and column to how its numbers are shown; others have three decimals.
_SHOWN = {
    **{("networks", column): lambda value: f"{100 * value:.2f} %" for column in ("accuracy", "low", "high")},
    **{("winners_between", c): lambda value: f"{100 * value:+.2f} points" for c in ("difference", "low", "high")},
    **{("networks", column): lambda value: f"{value:,.0f}" for column in ("params", "macs", "seeds")},
}
#: Columns that are too long for the page; the CSV files have them.
_LONG = ("architecture", "folder")


def write_side_by_side(folder: Path, tables: Mapping[str, pd.DataFrame], names: Sequence[str]) -> Path:
    """Write each table as CSV, and all as one page; return the path of the page."""
    for name, table in tables.items():
        write_text(folder / f"{name}.csv", table.to_csv(index=False, float_format="%.6g"))
    sections = []
    for part in PARTS:
        shown = [_shown(name, tables[name]) for name in part.tables if len(tables[name])]
        sections.append({"title": part.title, "tables": shown, "note": part.note if shown else part.absent})
        trained = tables["networks"].dropna(subset="accuracy")
        if "networks" in part.tables and len(trained):
            height, draw = 0.8 + 0.25 * len(trained), partial(networks_figure, networks=trained)
            sections[-1]["figure"] = figure("accuracy of all trained networks", draw, 7, height)
    template = _environment().get_template("side_by_side.html.j2")
    page, style = folder / "comparison.html", Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    write_text(page, template.render(names=names, sections=sections, style=style))
    return page


def networks_figure(axes, networks: pd.DataFrame) -> None:
    """Test accuracies of all trained networks, one colour a run, the first on top."""
    colours = (BLUE, ORANGE, GREEN, PURPLE, RED, GREY)
    runs = list(dict.fromkeys(networks["run"]))
    places = range(len(networks), 0, -1)
    for place, row in zip(places, networks.itertuples(), strict=True):
        colour = colours[runs.index(row.run) % len(colours)]
        if row.low == row.low:
            axes.plot([100 * row.low, 100 * row.high], [place, place], color=colour, linewidth=2, alpha=0.55)
        axes.plot(100 * row.accuracy, place, "o", color=colour, markersize=6)
    axes.set_yticks(list(places), [f"{row.run}: {row.role}" for row in networks.itertuples()])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.set_xlabel("test accuracy, % (dot: mean; bar: 95 % t interval)")


def _shown(name: str, table: pd.DataFrame) -> dict:
    if name == "scores":  # a column for each two runs
        table = table.assign(pair=table["run"] + ", " + table["other_run"] + " (n = " + table["n"].astype(str) + ")")
        table = table.pivot_table("spearman", "proxy", "pair", sort=False, dropna=False).reset_index()
    table = table.drop(columns=[column for column in _LONG if column in table])
    formats = [_SHOWN.get((name, column)) for column in table]
    rows = [[_cell(value, how) for value, how in zip(row, formats, strict=True)] for row in table.to_numpy(object)]
    return {"head": [column.replace("_", " ") for column in table], "rows": rows}


def _cell(value, shown: Callable | None) -> str:
    if value is None or value != value:
        return "–"
    if shown is not None:
        return shown(value)
    return f"{value:.3f}" if isinstance(value, float) else str(value)
