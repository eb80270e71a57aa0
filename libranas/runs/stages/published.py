"""Published tables of trained networks: how every combiner fares on them, beside the paper's numbers."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from libranas.core.files import write_text
from libranas.published.ablations import ablate_libra, table3, table4
from libranas.published.paper import by_labels, by_table, table1
from libranas.published.tables import COLUMNS, judge_table, read_table
from libranas.runs.folder import RunFolder

log = logging.getLogger("libranas")


def judge(run: RunFolder, path: str | Path, scores: str | Path | None = None) -> None:
    """Judge the combiners, the parts of L-SWAG and the steps of LIBRA on one published table; arguments as of
    :func:`libranas.published.tables.read_table`."""
    settings, seed, table = run.config["published"], run.config["seed"], read_table(path, scores)
    judged = judge_table(table, settings["labels"], settings["splits"], seed, settings["methods"])
    write_text(run.path("judged_table", table=table.name), judged.to_csv(index=False))

    column = {t: c for c, t in COLUMNS.items()}[table.name.lower()]
    parts = table3(table.sample.score_AP, table.accuracy_A, table.sample.params_A, column, seed)
    write_text(run.path("table3_table", table=table.name), parts.assign(column=column).to_csv(index=False))

    steps = [ablate_libra(table, 100, settings["splits"], seed, mode) for mode in ("literal", "corrected")]
    write_text(run.path("table4_table", table=table.name), pd.concat(steps).to_csv(index=False))


def join(run: RunFolder, names: Sequence[str]) -> None:
    """Join what was judged on each table; the paper's Tables 1, 3 and 4 beside ours, and quality by labels."""

    def joined(kind: str) -> pd.DataFrame:
        return pd.concat((pd.read_csv(run.path(f"{kind}_table", table=n)) for n in names), ignore_index=True)

    judged = joined("judged")
    ours = table1(judged)
    write_text(run.path("judged"), judged.to_csv(index=False))
    write_text(run.path("table1"), ours.to_csv(index_label="column", float_format="%.4g"))
    for name, table in {
        "table3": joined("table3"),
        "table4": table4(joined("table4")),
        "means": by_table(judged),
        "labels": by_labels(judged),
    }.items():
        write_text(run.path(name), table.to_csv(index=False, float_format="%.4g"))
    log.info("mean Spearman %.3f on %d columns", ours["ours"]["mean"], ours["ours"].iloc[:-1].notna().sum())
