"""Judge combiners on published tables: NAS-Bench-Suite-Zero's JSON, CSV files named ``SPACE-TASK.csv``, and others.

Columns: the architectures first, an accuracy, and the proxies, all taken as higher = better.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from libranas.core.errors import LibranasError
from libranas.core.random import stream_seed
from libranas.labels.table_files import has_task, read_table_file
from libranas.predictors.base import Sample
from libranas.predictors.evaluation import MEASURES, evaluate
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


@dataclass(frozen=True, eq=False)
class PublishedTable:
    """A table of a benchmark: everything over the same ids (the strings of ``arch``).

    Attributes
    ----------
    name : ``SPACE-TASK``
    accuracy_A : in the table's own unit
    sample : proxies and sizes; features too, where the space is known and they were asked for
    space : None if the name does not begin with that of a known one
    network_A : id of the network that each string stands for, where the space is known
    """

    name: str
    accuracy_A: pd.Series
    sample: Sample
    space: Space | None = None
    network_A: pd.Series | None = None


def space_of(name: str) -> Space:
    """The search space of the table `name`, with a task that does not matter for strings and features."""
    prefix, _, task = name.partition("-")
    if prefix not in SPACES:
        raise LibranasError(f"{name}: no search space of that name", f"known: {', '.join(SPACES)}")
    variant = {"variant": "naslib"} if prefix == "transbench101_micro" and task in NASLIB_TASKS else {}
    return make_space(SPACES[prefix] | variant, image_size=32, channels=3, classes=10)


def read_table(
    path: str | Path,
    scores: str | Path | None = None,
    *,
    space: Space | None = None,
    features: bool = True,
    accuracy: str | None = None,
    params: str = "params",
) -> PublishedTable:
    """Read one table.

    Parameters
    ----------
    path : see :func:`libranas.labels.table_files.read_table_file`
    scores : table of further scores, higher = better, architectures first; each architecture of the table needs one.
        A column that the table has itself is replaced.
    space : that of the architectures; by the table's name, where not given
    features : whether to describe the architectures; learners use it
    accuracy, params : columns; the latter may be one of the further scores. Default: a usual name of the former

    LibranasError for a missing file or column, a repeated architecture, or one without further scores.
    """
    read = read_table_file(path)
    accuracy = read.accuracy(accuracy)
    if space is None and read.name.partition("-")[0] in SPACES:
        space = space_of(read.name)
    columns = f"expected architectures in the first column, the columns {accuracy} and {params}, and proxies"
    try:
        table = _by_architecture(read.frame)
        if table[accuracy].dtype == bool:
            raise ValueError(f"{accuracy} is true or false")
        accuracy_A = table.pop(accuracy).astype(np.float64)
        score_AP = table.astype(np.float64)
    except (ValueError, KeyError) as error:
        raise LibranasError(f"{path} is no table of scores and accuracies ({error})", columns) from None
    if len(repeated := table.index[table.index.duplicated()]):
        raise LibranasError(f"{path}: {repeated[0]} comes twice", "keep one line an architecture")
    params_A = score_AP.get(params)
    if scores is not None:
        score_AP = _with_scores(score_AP, scores, space, path)
    if params_A is None and params not in score_AP:
        raise LibranasError(f"{path} is no table of scores and accuracies (it has no column {params})", columns)
    params_A = score_AP[params] if params_A is None else params_A
    for name, number_A in ((accuracy, accuracy_A), (params, params_A)):
        if len(bad := table.index[~np.isfinite(number_A)]):
            raise LibranasError(
                f"{path}: the {name} of {bad[0]} is no finite number ({len(bad)} such rows)", "remove or mend the rows"
            )
    if space is None:
        return PublishedTable(read.name, accuracy_A, Sample(score_AP, params_A))
    archs = [space.parse(text) for text in table.index]
    network_A = pd.Series([space.representative(arch).id for arch in archs], table.index)
    feature_AF = pd.DataFrame([space.features(arch) for arch in archs], table.index) if features else None
    return PublishedTable(read.name, accuracy_A, Sample(score_AP, params_A, feature_AF), space, network_A)


def _by_architecture(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.set_index(frame.columns[0])


def renamed(further: pd.DataFrame, names: pd.Index, space: Space | None, path: str | Path) -> pd.DataFrame:
    """Return further scores by the names that a table has for the architectures; the files may differ in notation.

    LibranasError if they are of other architectures.
    """
    if space is not None and not further.index.isin(names).any():
        own = {space.parse(str(name)).id: name for name in names}
        further = further.rename(index=lambda name: own.get(space.parse(str(name)).id, name))
    if not further.index.isin(names).any():
        raise LibranasError(
            f"{path} has no architecture of the table: {further.index[0]}, not {names[0]}.", "Name its scores."
        )
    return further


def _with_scores(score_AP: pd.DataFrame, scores: str | Path, space: Space | None, path: str | Path) -> pd.DataFrame:
    """Add further scores; those of the table give way."""
    extra = renamed(_by_architecture(read_table_file(scores).frame), score_AP.index, space, scores)
    if len(missing := score_AP.index.difference(extra.index)):
        raise LibranasError(
            f"{path}: {len(missing)} architectures have no further scores, e.g. {missing[0]}", "score them"
        )
    return score_AP.drop(columns=score_AP.columns.intersection(extra.columns)).join(extra)


def judge_table(
    table: PublishedTable,
    ks: Sequence[int],
    splits: int = 20,
    seed: int = 0,
    methods: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Judge combiners on a published table: fitted on k labelled architectures, judged on the others.

    Parameters
    ----------
    ks : numbers of labels; one that leaves fewer than 50 networks (:data:`JUDGED`) of the table is left out

    Returns
    -------
    DataFrame, one row a method, k and split: ``table, method, k, split, spearman, kendall, p1, p5, regret, lacks``.
    A method that lacks something has one row with split -1, NaN and what it lacks. Methods that use no labels are
    judged with every k, each time on the architectures that are not among the k.
    """
    result = evaluate(
        table.sample.score_AP,
        table.accuracy_A,
        table.sample.params_A,
        [k for k in ks if table.network_A.nunique() >= k + JUDGED],
        splits,
        stream_seed(seed, "published", table.name),
        methods,
        feature_AF=table.sample.feature_AF,
        network_A=table.network_A,
    )
    lacking = result.summary[result.summary["lacks"] != ""]
    lacking = lacking[["method", "n_calibration", "lacks"]].assign(split=-1)
    rows = pd.concat([result.per_split.assign(lacks=""), lacking], ignore_index=True)
    rows = rows.rename(columns={"n_calibration": "k"}).assign(table=table.name)
    return rows[["table", "method", "k", "split", *MEASURES, "lacks"]]


def scores_file(folder: str | Path | None, table: str) -> Path | None:
    """The file ``SPACE.csv`` of `folder` with further scores for the networks of a table, if there is one."""
    path = Path(folder or "") / f"{table.partition('-')[0]}.csv"
    return path if folder is not None and path.exists() else None


def find_tables(folder: str | Path) -> dict[str, str]:
    """Tables in a folder that are columns of the paper's Table 1, in its order: name to ``FILE`` or ``FILE:TASK``.

    They are files ``SPACE-TASK.csv``, and the tasks of files ``zc_SPACE.json`` that no such file has.
    """
    there = {path.stem.lower(): path for path in Path(folder).glob("*.csv")}
    found = {}
    for name in COLUMNS.values():
        space, _, task = name.partition("-")
        whole = Path(folder) / f"zc_{space}.json"
        if name in there:
            found[there[name].stem] = str(there[name])
        elif whole.exists() and (spelled := has_task(whole, task)):
            found[f"{space}-{spelled}"] = f"{whole}:{spelled}"
    return found
