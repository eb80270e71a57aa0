"""The paper's printed tables beside ours."""

from pathlib import Path

import numpy as np
import pandas as pd

from libranas.predictors.evaluation import MEASURES
from libranas.published.tables import COLUMNS


def printed_table(number: int) -> pd.DataFrame:
    """The paper's Table 1, 3 or 4 as printed, its columns of benchmarks named as in :data:`COLUMNS`."""
    return pd.read_csv(Path(__file__).with_name("printed") / f"table{number}.csv")


def table1(result: pd.DataFrame, method: str = "blend", k: int = 100) -> pd.DataFrame:
    """One method beside the paper's Table 1 (Spearman of combinations).

    Parameters
    ----------
    result : of :func:`libranas.published.tables.judge_table`, tables joined

    Returns
    -------
    DataFrame, one row a column of the paper: the printed values, ``ours`` (mean over the splits), ``low`` and ``high``
    (2.5 and 97.5 percentiles over the splits; NaN where there is no table) and ``better`` than its LIBRA; the last row
    has the means over the columns that have a table, and the number of columns in which ours is better.
    """
    printed = printed_table(1).set_index("method").T
    part = result[(result["method"] == method) & (result["k"] == k) & (result["split"] >= 0)]
    rho = part.assign(table=part["table"].str.lower()).groupby("table")["spearman"]
    ours = pd.DataFrame({"ours": rho.mean(), "low": rho.quantile(0.025), "high": rho.quantile(0.975)})
    out = printed.join(ours.reindex([COLUMNS[c] for c in printed.index]).set_axis(printed.index))
    out["better"] = (out["ours"] > out["LIBRA"]).astype(float).where(out["ours"].notna())
    out.loc["mean"] = out[out["ours"].notna()].mean()
    out.loc["mean", ["low", "high"]] = np.nan
    out.loc["mean", "better"] = out["better"].iloc[:-1].sum()
    return out


def by_table(result: pd.DataFrame) -> pd.DataFrame:
    """Each method's mean over the splits, one row a table, method and number of labels: ``table, method, k``, the
    measures, and ``low, high``, the 2.5 and 97.5 percentiles of Spearman over the splits."""
    rows = result[result["split"] >= 0].groupby(["table", "method", "k"], sort=False)
    rho = rows["spearman"]
    out = rows[list(MEASURES)].mean().assign(low=rho.quantile(0.025), high=rho.quantile(0.975))
    return out.reset_index()


def by_labels(result: pd.DataFrame) -> pd.DataFrame:
    """Mean over the tables of each method's mean over the splits, one row a method and number of labels:
    ``method, k, tables, spearman, kendall, p1, p5``. Only tables that have every number of labels count."""
    judged = result[result["split"] >= 0]
    counts = judged.groupby("table")["k"].nunique()
    judged = judged[judged["table"].isin(counts.index[counts == counts.max()])]
    measures = [m for m in MEASURES if m != "regret"]  # that one is in the unit of the table
    means = judged.groupby(["method", "k", "table"])[measures].mean().groupby(["method", "k"])
    return means.mean().join(means.size().rename("tables")).reset_index()
