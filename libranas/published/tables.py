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

from libranas.core.errors import LibranasError
from libranas.core.random import stream_seed
from libranas.predictors.evaluation import evaluate
from libranas.spaces import Space, make_space

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
    score_AP, accuracy_A, params_A : as in :mod:`libranas.predictors.libra`
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
