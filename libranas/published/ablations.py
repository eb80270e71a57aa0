"""Ablations of L-SWAG and LIBRA: the paper's Tables 3 and 4."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from libranas.core.random import stream_seed
from libranas.core.stats import spearman
from libranas.predictors.evaluation import parted, proxy_table
from libranas.predictors.libra import choose, log_rank
from libranas.published.paper import printed_table
from libranas.published.tables import COLUMNS, JUDGED, PublishedTable

#: Rows of the paper's Table 3, and two of ours, to the column of
#: :func:`libranas.scores.layer_window.whole_and_windowed` that each one is. Two rows of the paper are left out, because
#: it does not say what they multiply.
TABLE3 = {
    "ZiCo form log(mu/sigma), all layers": "zico",
    "no mu": "lswag_lambda",
    "Psi only": "lswag_psi",
    "no mu + layers": "lswag_lambda_window",
    "no mu + Psi": "lswag",
    "full L-SWAG": "lswag_window",
    "Psi of samples (ours)": "lswag_sample_psi",
    "L-SWAG of samples (ours)": "lswag_sample",
}


def table3(
    parts_AP: pd.DataFrame,
    accuracy_A: pd.Series,
    params_A: pd.Series,
    column: str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """The ablation of L-SWAG (the paper's Table 3): Spearman of each of its parts. No label chooses anything.

    Parameters
    ----------
    parts_AP : of :func:`libranas.scores.layer_window.whole_and_windowed`
    accuracy_A, params_A : the same architectures, in any order
    column : that of the paper (:data:`COLUMNS`), if it is one

    Returns
    -------
    DataFrame ``components, paper, spearman, low, high, partial_given_params, n``, a row each of :data:`TABLE3` that
    `parts_AP` has; low and high are a 95 % bootstrap interval; ``paper`` is NaN where it has no such value.
    """
    held = [title for title, name in TABLE3.items() if name in parts_AP]
    parts_AP = parts_AP.loc[accuracy_A.index, [TABLE3[title] for title in held]].set_axis(held, axis=1)
    judged = proxy_table(parts_AP, accuracy_A, params_A, seed) if held else pd.DataFrame(columns=["proxy"])
    out = judged.set_index("proxy").reindex(held).rename_axis("components").reset_index()
    out["paper"] = out["components"].map(printed_table(3).set_index("components").get(column, {}))
    return out.reindex(columns=["components", "paper", "spearman", "low", "high", "partial_given_params", "n"])


#: Proxies by what they need of a network, for :func:`table4`.
GRADIENT_FREE = ("params", "flops", "l2_norm", "nwot", "zen", "lswag_psi", "lswag_sample_psi", "az_expressivity")
GRADIENT_BASED = (
    *("plain", "snip", "grad_norm", "fisher", "grasp", "synflow", "jacov", "epe_nas", "zico", "az_trainability"),
    *("lswag", "lswag_lambda", "lswag_lambda_window", "lswag_window", "lswag_sample", "lswag_sample_lambda"),
)


def ablate_libra(
    table: PublishedTable, k: int = 100, splits: int = 20, seed: int = 0, mode: str = "corrected"
) -> pd.DataFrame:
    """The strategies of the paper's Table 4 on a published table, chosen on k architectures and judged on the rest.

    Every strategy makes its ranking as LIBRA does, by the sum of log ranks. ``mode`` is that of
    :func:`libranas.predictors.libra.choose`: which estimate of the information gain, and which guards.

    Returns
    -------
    DataFrame ``table, mode, part, strategy, spearman``, parts and strategies named as in the paper: mean Spearman over
    the splits; NaN where a strategy cannot be carried out in a table, such as two of a kind that has one proxy.
    """
    score_AP = table.sample.score_AP.loc[:, table.sample.score_AP.nunique() > 1]
    rows = []
    for split in range(splits if table.network_A.nunique() >= k + JUDGED else 0):
        rng = np.random.default_rng(stream_seed(seed, "table4", table.name, split))
        fit, rest = parted(rng, k, table.network_A.to_numpy())
        options = (score_AP.iloc[fit], table.accuracy_A.iloc[fit], table.sample.params_A.iloc[fit], mode)
        truth = table.accuracy_A.iloc[rest].to_numpy()
        for (part, strategy), proxies in _strategies(options, split, rng).items():
            rho = np.nan
            if proxies is not None:
                rho = spearman(log_rank(score_AP.iloc[rest][proxies]).to_numpy(), truth)
            rows.append((table.name, mode, part, strategy, rho))
    columns = ["table", "mode", "part", "strategy", "spearman"]
    grouped = pd.DataFrame(rows, columns=columns).groupby(columns[:-1], sort=False)["spearman"]
    return grouped.apply(lambda rho: rho.mean(skipna=False)).reset_index()


def table4(ablation: pd.DataFrame) -> pd.DataFrame:
    """The ablation of LIBRA beside the paper's Table 4.

    Parameters
    ----------
    ablation : of :func:`ablate_libra`

    Returns
    -------
    DataFrame, a row a ``mode``, ``part`` and ``strategy``, in the order of the paper: its columns (``paper ...``), ours
    under the names of the paper's Table 1, and ``mean`` of ours over the tables that have every strategy.
    """
    titles = {table: column for column, table in COLUMNS.items()}
    ours = ablation.assign(column=ablation["table"].str.lower().map(titles))
    ours = ours.pivot(index=["mode", "part", "strategy"], columns="column", values="spearman")
    ours = ours[[c for c in COLUMNS if c in ours]]
    ours["mean"] = ours.dropna(axis=1).mean(axis=1)
    printed = printed_table(4).set_index(["part", "strategy"]).add_prefix("paper ")
    out = [printed.join(part.droplevel("mode")).assign(mode=mode) for mode, part in ours.groupby("mode")]
    return pd.concat(out).reset_index().set_index(["mode", "part", "strategy"]).reset_index()


def _strategies(
    options: tuple[pd.DataFrame, pd.Series, pd.Series, str], seed: int, rng: np.random.Generator
) -> dict[tuple[str, str], list[str] | None]:
    """(part, strategy) of the paper's Table 4 to the proxies chosen; None where there are too few."""
    score_CP, mode = options[0], options[3]
    lowest, highest = (choose(*options, ig_select=which, seed=seed) for which in ("min", "max"))
    libra = lowest if mode == "literal" else highest
    by_rho = sorted(libra.rho, key=lambda p: (-libra.rho[p], p))
    free, based = ([p for p in by_rho if p in kind] for kind in (GRADIENT_FREE, GRADIENT_BASED))
    two = [libra.z1, libra.z2]
    others = [p for p in by_rho if p not in two]
    pool = [p for p in libra.window if p not in two] or others[:1]

    def third(key: Callable[[str], float]) -> list[str]:
        return [*two, min(pool, key=lambda p: (round(key(p), 12), p))]

    chosen = {
        ("z1+z2", "2 best gradient-free"): free[:2],
        ("z1+z2", "2 best gradient-based"): based[:2],
        ("z1+z2", "one of each"): free[:1] + based[:1],
        ("z1+z2", "2 random"): list(rng.choice(sorted(score_CP.columns), 2, replace=False)),
        ("z1+z2", "best + max IG"): [highest.z1, highest.z2],
        ("z1+z2", "best + min IG"): [lowest.z1, lowest.z2],
        ("z3", "without bias step"): two,
        ("z3", "random z3"): [*two, str(rng.choice(sorted(others)))],
        ("z3", "bias minimisation"): third(lambda p: abs(libra.bias[p])),
        ("z3", "bias matching (LIBRA)"): libra.proxies,
    }
    return {name: proxies if len(proxies) >= 2 else None for name, proxies in chosen.items()}
