"""Beside the paper's tables, and the protocol on published ones: hundreds of trained networks with proxy values.

The tables are those of NAS-Bench-Suite-Zero as CSV files named ``SPACE-TASK.csv``: ``arch`` (the strings of NASLib),
``val_accuracy`` and one column a proxy, as stored there, all taken as higher = better (as the authors report them).
Values that are not finite rank last. ``params`` is in millions.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from libranas.ensemble import MEASURES, evaluate, parted, proxy_table
from libranas.errors import LibranasError
from libranas.libra import choose, log_rank
from libranas.provenance import stream_seed
from libranas.spaces import Space, make_space
from libranas.stats import spearman

#: Config section ``space`` of a table, by the beginning of its name.
SPACES = {
    "nasbench101": {"family": "nasbench101"},
    "nasbench201": {"family": "nasbench201"},
    "nasbench301": {"family": "darts"},
    "transbench101_micro": {"family": "transnas101", "level": "micro"},
    "transbench101_macro": {"family": "transnas101", "level": "macro"},
}
#: Tables that NASLib's own training made: other codes for the operations of the micro space.
NASLIB_TASKS = ("ninapro", "scifar100", "svhn")

#: Numbers of labels of the protocol.
LABELS = (0, 10, 25, 50, 100, 200)

#: A table is judged with k labels if it has this many networks more.
JUDGED = 50

#: Column of the paper's Table 1 to the name of its table, lower case.
COLUMNS = {
    "NB201-C10": "nasbench201-cifar10",
    "NB201-C100": "nasbench201-cifar100",
    "NB201-IN16-120": "nasbench201-imagenet16-120",
    "NB101-C10": "nasbench101-cifar10",
    "NB301-C10": "nasbench301-cifar10",
} | {
    f"TNB101-{kind.capitalize()}-{short}": f"transbench101_{kind}-{task}"
    for kind in ("micro", "macro")
    for short, task in (
        ("AE", "autoencoder"),
        ("Room", "room_layout"),
        ("Obj", "class_object"),
        ("Scene", "class_scene"),
        ("Jig", "jigsaw"),
        ("Norm", "normal"),
        ("Segm", "segmentsemantic"),
    )
}


@dataclass(frozen=True)
class PublishedTable:
    """A table of a benchmark: everything over the same ids (the strings of ``arch``).

    Attributes
    ----------
    name : ``SPACE-TASK``
    score_AP, accuracy_A, params_A : as in :mod:`libranas.libra`
    feature_AF : features of the architectures, None if they were not asked for
    network_A : id of the network that each is: several strings of a benchmark can compute the same function
    """

    name: str
    score_AP: pd.DataFrame
    accuracy_A: pd.Series
    params_A: pd.Series
    feature_AF: pd.DataFrame | None = None
    network_A: pd.Series | None = None


def space_of(name: str) -> Space:
    """The search space of the table `name`, with a task that does not matter for strings and features."""
    prefix, _, task = name.partition("-")
    if prefix not in SPACES:
        raise LibranasError(f"{name}: no search space of that name", f"known: {', '.join(SPACES)}")
    variant = {"variant": "naslib"} if prefix == "transbench101_micro" and task in NASLIB_TASKS else {}
    return make_space(SPACES[prefix] | variant, image_size=32, channels=3, classes=10)


def describe(name: str, archs: Iterable[str]) -> pd.DataFrame:
    """Features of the architectures of a table, from their strings alone; rows in the order of `archs`."""
    space = space_of(name)
    return pd.DataFrame([space.features(space.parse(text)) for text in archs], index=pd.Index(archs))


def read_table(
    path: str | Path,
    features: Callable[[str, Iterable[str]], pd.DataFrame] | None = describe,
    extra: pd.DataFrame | None = None,
    accuracy: str = "val_accuracy",
    params: str = "params",
) -> PublishedTable:
    """Read one table.

    Parameters
    ----------
    features : makes the features from the name of the table and its architectures; None leaves them out, as does a
        name of no known space
    extra : further scores, higher = better, rows named by the strings of ``arch``; each architecture of the table
        needs one. A column that the table has itself is replaced.

    Raises
    ------
    LibranasError
        For a missing file or column, a repeated architecture, or one without extra scores.
    """
    path = Path(path)
    try:
        table = pd.read_csv(path, index_col=0)
        accuracy_A = table.pop(accuracy).astype(np.float64)
        score_AP = table.astype(np.float64)
        params_A = score_AP[params]
    except FileNotFoundError:
        raise LibranasError(f"{path} does not exist", "give the path of a table") from None
    except (ValueError, KeyError) as error:
        raise LibranasError(
            f"{path} is no table of scores and accuracies ({error})",
            f"expected architectures in the first column, the columns {accuracy} and {params}, and proxies",
        ) from None
    if len(repeated := table.index[table.index.duplicated()]):
        raise LibranasError(f"{path}: {repeated[0]} comes twice", "keep one line an architecture")
    if extra is not None:
        if len(missing := table.index.difference(extra.index)):
            raise LibranasError(
                f"{path}: {len(missing)} architectures have no extra scores, e.g. {missing[0]}", "score them"
            )
        score_AP = score_AP.drop(columns=score_AP.columns.intersection(extra.columns)).join(extra)
    if path.stem.partition("-")[0] not in SPACES:
        return PublishedTable(path.stem, score_AP, accuracy_A, params_A)
    space = space_of(path.stem)
    network_A = pd.Series([space.representative(space.parse(text)).id for text in table.index], table.index)
    feature_AF = None if features is None else features(path.stem, table.index)
    return PublishedTable(path.stem, score_AP, accuracy_A, params_A, feature_AF, network_A)


def judge_tables(
    folder: str | Path,
    extra_scores: Mapping[str, pd.DataFrame] | None = None,
    ks: Sequence[int] = LABELS,
    splits: int = 20,
    seed: int = 0,
    methods: Sequence[str] | None = None,
    *,
    tables: Sequence[str] | None = None,
    features: Callable[[str, Iterable[str]], pd.DataFrame] | None = describe,
) -> pd.DataFrame:
    """Judge combiners on published tables: fitted on k labelled architectures, judged on the rest of the table.

    Parameters
    ----------
    folder : of ``SPACE-TASK.csv``
    extra_scores : further scores of some tables, by name; see :func:`read_table`
    ks : numbers of labels; one that leaves fewer than 50 networks (:data:`JUDGED`) of a table is left out there
    tables : names without ``.csv``; those of the paper's Table 1 that the folder has, if not given

    Returns
    -------
    DataFrame, one row a table, method, k and split: ``table, method, k, split, spearman, kendall, p1, p5, regret,
    lacks``.
    A method that lacks something has one row with split -1, NaN and what it lacks. Methods that use no labels are
    judged with every k, each time on the architectures that are not among the k.
    """
    names = find_tables(folder) if tables is None else list(tables)
    if not names:
        raise LibranasError(f"{folder} has no table of the paper's Table 1", "name the tables, or another folder")

    def one(name: str) -> pd.DataFrame:
        table = read_table(Path(folder) / f"{name}.csv", features, (extra_scores or {}).get(name))
        counts = [k for k in ks if table.network_A.nunique() >= k + JUDGED]
        result = evaluate(
            table.score_AP,
            table.accuracy_A,
            table.params_A,
            counts,
            splits,
            stream_seed(seed, "published", name),
            methods,
            feature_AF=table.feature_AF,
            network_A=table.network_A,
        )
        lacking = result.summary[result.summary["lacks"] != ""]
        lacking = lacking[["method", "n_calibration", "lacks"]].assign(split=-1)
        rows = pd.concat([result.per_split.assign(lacks=""), lacking], ignore_index=True)
        return rows.rename(columns={"n_calibration": "k"}).assign(table=name)

    results = pd.concat(map(one, names), ignore_index=True)
    return results[["table", "method", "k", "split", "spearman", "kendall", "p1", "p5", "regret", "lacks"]]


def scores_file(folder: str | Path | None, table: str) -> Path | None:
    """The file ``SPACE.csv`` of `folder` with further scores for the networks of a table, if there is one."""
    path = Path(folder or "") / f"{table.partition('-')[0]}.csv"
    return path if folder is not None and path.exists() else None


def read_scores(folder: str | Path | None, tables: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Further scores for each of `tables` whose space has a file ``SPACE.csv`` in `folder` (``arch`` and proxies)."""
    files = {name: scores_file(folder, name) for name in tables}
    return {name: pd.read_csv(path, index_col="arch") for name, path in files.items() if path}


def find_tables(folder: str | Path) -> list[str]:
    """Names of the tables in a folder that are columns of the paper's Table 1, in its order."""
    there = {path.stem.lower(): path.stem for path in Path(folder).glob("*.csv")}
    return [there[name] for name in COLUMNS.values() if name in there]


# -- beside the paper's tables ---------------------------------------------------------------------------------


def printed_table(number: int) -> pd.DataFrame:
    """The paper's Table 1, 3 or 4 as printed, its columns of benchmarks named as in :data:`COLUMNS`."""
    return pd.read_csv(Path(__file__).with_name("paper") / f"table{number}.csv")


def table1(result: pd.DataFrame, method: str = "blend", k: int = 100) -> pd.DataFrame:
    """One method beside the paper's Table 1 (Spearman of combinations).

    Parameters
    ----------
    result : of :func:`judge_tables`

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
    measures of :func:`judge_tables`, and ``low, high``, the 2.5 and 97.5 percentiles of Spearman over the splits."""
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


#: Rows of the paper's Table 3, and two of ours, to the column of :func:`libranas.layers.parts` that each one is. Two
#: rows of the paper are left out, because it does not say what they multiply.
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
    parts_AP : of :func:`libranas.layers.parts`
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
    "plain",
    "snip",
    "grad_norm",
    "fisher",
    "grasp",
    "synflow",
    "jacov",
    "epe_nas",
    "zico",
    "lswag_lambda",
)
GRADIENT_BASED += ("lswag", "lswag_lambda_window", "lswag_window", "lswag_sample", "lswag_sample_lambda")
GRADIENT_BASED += ("az_trainability",)


def ablate_libra(
    folder: str | Path,
    extra_scores: Mapping[str, pd.DataFrame] | None = None,
    k: int = 100,
    splits: int = 20,
    seed: int = 0,
    mode: str = "corrected",
    *,
    tables: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The strategies of the paper's Table 4 on published tables, chosen on k architectures and judged on the rest.

    Every strategy makes its ranking as LIBRA does, by the sum of log ranks. ``mode`` is that of
    :func:`libranas.libra.choose`: which estimate of the information gain, and which guards. The other arguments are
    those of :func:`judge_tables`.

    Returns
    -------
    DataFrame ``table, mode, part, strategy, spearman``, parts and strategies named as in the paper: mean Spearman over
    the splits; NaN where a strategy cannot be carried out in a table, such as two of a kind that has one proxy.
    """
    rows = []
    for name in find_tables(folder) if tables is None else tables:
        table = read_table(Path(folder) / f"{name}.csv", None, (extra_scores or {}).get(name))
        score_AP = table.score_AP.loc[:, table.score_AP.nunique() > 1]
        for split in range(splits if table.network_A.nunique() >= k + JUDGED else 0):
            rng = np.random.default_rng(stream_seed(seed, "table4", name, split))
            fit, rest = parted(rng, k, table.network_A.to_numpy())
            options = (score_AP.iloc[fit], table.accuracy_A.iloc[fit], table.params_A.iloc[fit], mode)
            truth = table.accuracy_A.iloc[rest].to_numpy()
            for (part, strategy), proxies in _strategies(options, split, rng).items():
                rho = np.nan
                if proxies is not None:
                    rho = spearman(log_rank(score_AP.iloc[rest][proxies]).to_numpy(), truth)
                rows.append((name, mode, part, strategy, rho))
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
