"""Searches with few labels on published tables and over whole published spaces: what guided search is worth.

    python benchmarks/guided.py TABLES [--runs 20] [--jobs 2]       # hours on one core; killed, it goes on
    python benchmarks/guided.py WHOLE --whole [--runs 20]
    python benchmarks/guided.py WHOLE --whole --factor              # after that

TABLES holds ``SPACE-TASK.csv`` of NAS-Bench-Suite-Zero (docs/published-benchmarks.md), WHOLE the accuracies of all
members as ``SPACE.csv``. Proxies are those of the tables and our own: ``benchmarks/published/scores``, and of whole
spaces those of ``full_spaces.py``. Writes ``benchmarks/guided/tables.csv`` or ``whole.csv``, one row for each table,
method and number of labels, and the conditions beside. ``--factor`` writes ``whole-factor.csv``: how many labels the
other searches need for the mean regret that guided search has after 50.

The defaults of guided search were chosen on :data:`CHOSE`, with other seeds; all other tables confirm them.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from libranas.core.files import write_json, write_text
from libranas.core.progress import progress
from libranas.core.provenance import facts
from libranas.core.random import stream_seed
from libranas.published.pool import read_pool
from libranas.published.tables import NASLIB_TASKS, scores_file
from libranas.search.simulate import METHODS as SEARCHES
from libranas.search.simulate import simulate

SCORES = Path(__file__).with_name("published") / "scores"
OUT = Path(__file__).with_name("guided")
METHODS = ("guided", "features", "evolution", "ageing", "random")
#: Those that look for as long as they need, with how many labels at most, to reach guided search after FEW labels.
OTHERS, MOST, FEW = ("evolution", "ageing", "random"), 600, 50
#: Tables and columns of whole spaces that chose the settings.
CHOSE = (
    "nasbench201-cifar100",
    "nasbench301-cifar10",
    "transbench101_macro-class_object",
    "transbench101_macro-autoencoder",
    "transbench101_micro-segmentsemantic",
    "transbench101_micro-autoencoder",
    "whole transbench101_macro-room_layout",
    "whole transbench101_micro-jigsaw",
    "whole nasbench201-cifar100",
)


def pools(folder: Path, whole: bool) -> dict[str, tuple]:
    """Name of a table to the arguments of :func:`libranas.published.pool.read_pool`."""
    found = {}
    for path in sorted(folder.glob("*.csv")):
        columns = list(pd.read_csv(path, nrows=1).columns)
        if whole:
            scores = SCORES / "whole" / f"{path.stem}.csv.gz"
            for task in columns[1:]:
                own = scores if scores.exists() else None
                found[f"whole {path.stem}-{task}"] = (f"{path}:{task}", None, None, own)
        elif "val_accuracy" in columns:
            # Their strings name other networks, or there are far more of them.
            foreign = path.stem.endswith(("9445", *NASLIB_TASKS))
            found[path.stem] = (path, None, None, None if foreign else scores_file(SCORES, path.stem))
    return found


def searched(name: str, arguments: tuple, runs: int, seed: int) -> pd.DataFrame:
    pool = read_pool(*arguments)
    labels = min(100, len(pool) // 2)
    table = simulate(pool, METHODS, labels, runs, seed)
    proxies = len(pool.sample.varying)
    table.insert(0, "table", name)
    return table.assign(networks=len(pool), proxies=proxies, chose=name in CHOSE)


def needed(name: str, arguments: tuple, runs: int, seed: int, regret: float) -> pd.DataFrame:
    """Labels after which the mean regret of a search is `regret`; missing if it never is."""
    pool, rows = read_pool(*arguments), []
    labels = min(MOST, len(pool))
    for method in OTHERS:
        held = [SEARCHES[method](pool, labels, stream_seed(seed, run)) for run in range(runs)]
        mean = pool.accuracy_N.max() - pool.accuracy_N[np.array(held)].mean(axis=0)
        enough = np.flatnonzero(mean <= regret) + 1
        count = int(enough[0]) if len(enough) else None
        rows.append({"table": name, "runs": runs, "method": method, "regret": regret, "labels": count, "most": labels})
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--whole", action="store_true", help="the folder holds whole spaces")
    parser.add_argument("--factor", action="store_true", help="labels that other searches need")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", nargs="+", help="tables whose names contain one of these")
    options = parser.parse_args()
    path = OUT / ("whole.csv" if options.whole else "tables.csv")
    if options.factor:
        judged = pd.read_csv(path).query("method == 'guided' and labels == @FEW").set_index("table")["regret"]
        path = path.with_stem(f"{path.stem}-factor")
    done = pd.read_csv(path) if path.exists() else pd.DataFrame({"table": [], "runs": []})
    finished = set(done.loc[done["runs"] == options.runs, "table"])
    work = {name: given for name, given in pools(options.folder, options.whole).items() if name not in finished}
    if options.only:
        work = {name: given for name, given in work.items() if any(part in name for part in options.only)}
    with ProcessPoolExecutor(options.jobs) as executor:
        jobs = [
            executor.submit(needed, name, given, options.runs, options.seed, judged[name])
            if options.factor
            else executor.submit(searched, name, given, options.runs, options.seed)
            for name, given in work.items()
        ]
        for job in progress(jobs, len(jobs), "tables"):
            new = job.result()
            done = pd.concat([done[done["table"] != new["table"].iloc[0]], new])
            write_text(path, done.to_csv(index=False, float_format="%.6g"))
            write_json(path.with_suffix(".json"), {"runs": options.runs, "seed": options.seed, "facts": facts()})


if __name__ == "__main__":
    main()
