"""Figures of searches on published tables."""

from collections.abc import Sequence

import pandas as pd

from libranas.report.drawing import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, figure

#: In an order in which neighbours differ.
COLOURS = (BLUE, RED, GREEN, PURPLE, ORANGE, "#56b4e9", GREY)


def _look(names: Sequence[str]) -> dict[str, dict]:
    """Colour and line of each fitness; accuracy, the bound, in black."""
    lines = ("-", "--", ":")
    rest = [name for name in names if name != "accuracy"]
    count = len(COLOURS)
    looks = {n: {"color": COLOURS[i % count], "linestyle": lines[i // count]} for i, n in enumerate(rest)}
    return looks | {"accuracy": {"color": "#000000", "linestyle": "-"}}


def draw_regrets(rows: pd.DataFrame) -> str:
    """SVG of the mean regret of evolution against evaluations, one table, a line a guide; without the very first ones,
    which are random and alike."""
    rows = rows[rows["evaluations"] >= min(5, rows["evaluations"].max())]
    evolution = rows[rows["strategy"] == "evolution"]
    looks = _look(list(dict.fromkeys(evolution["fitness"])))

    def draw(axes):
        for name, part in evolution.groupby("fitness", sort=False):
            axes.plot(part["evaluations"], part["regret"], linewidth=1.8, label=name, **looks[name])
            axes.fill_between(
                part["evaluations"], part["low"], part["high"], color=looks[name]["color"], alpha=0.1, lw=0
            )
        other = rows[(rows["strategy"] == "random") & (rows["fitness"] == "accuracy")]
        axes.plot(
            other["evaluations"], other["regret"], color="#000000", linestyle="--", label="accuracy, random search"
        )
        axes.set_xscale("log")
        points = [p for p in sorted(set(rows["evaluations"])) if p != 150]  # 150 and 200 would overlap
        axes.set_xticks(points, [str(p) for p in points])
        axes.minorticks_off()
        axes.set_xlabel("evaluations (evolution)")
        axes.set_ylabel("regret of the incumbent")
        axes.set_title(f"{rows['table'].iloc[0]}, {rows['runs'].iloc[0]} runs: mean and 95 % interval", fontsize=9)
        axes.grid()
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)

    return figure(draw, 7.5, 3.8)


def draw_fronts(rows: pd.DataFrame) -> str:
    """SVG of the regret at limits of latency, a panel a device, a line a guide."""
    names, devices = (list(dict.fromkeys(rows[c])) for c in ("fitness", "device"))
    marks = {"ranking": ("o", BLUE), "evolution": ("D", RED), "random": ("|", GREY)}

    def draw(axes):
        page = axes.figure
        axes.remove()
        for i, (panel, device) in enumerate(
            zip(page.subplots(1, len(devices), sharey=True, squeeze=False)[0], devices, strict=True)
        ):
            for method, (mark, colour) in marks.items():
                part = rows[(rows["device"] == device) & (rows["method"] == method)].set_index("fitness").loc[names]
                places = range(len(names), 0, -1)
                panel.plot(part["regret"], places, mark, color=colour, markersize=5, label=method)
                panel.hlines(places, part["regret_low"], part["regret_high"], color=colour, alpha=0.5)
            panel.set_title(device, fontsize=9)
            panel.set_yticks(list(places), names)
            panel.tick_params(axis="y", length=0)
            panel.set_xlim(left=0)
            panel.grid()
            if i == 0:
                page.legend(*panel.get_legend_handles_labels(), loc="outside upper right", ncols=3, fontsize=8)
        page.supxlabel("accuracy lost against the true front, mean over limits of latency", fontsize=9)

    return figure(draw, 1.5 + 1.6 * len(devices), 0.9 + 0.27 * len(names))
