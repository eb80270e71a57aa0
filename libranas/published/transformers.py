"""``vit-six``, the benchmark of vision transformers: networks of a wide space, each trained on six kinds of images."""

from pathlib import Path

import pandas as pd

from libranas import scores as store
from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.core.files import read_json
from libranas.predictors.base import Sample
from libranas.published.tables import PublishedTable
from libranas.spaces import make_space

#: ``networks.csv``, ``trainings.csv``, ``scores.csv``, ``about.json`` and a file of scores a task; docs/vit-six.md.
FOLDER = Path(__file__).with_name("vit-six")


def vit_six() -> dict[str, PublishedTable]:
    """Return the benchmark: a table of networks for each task.

    A table holds, over the ids of the networks trained on its task: the mean validation accuracy (in [0, 1]), the
    scores of all proxies at initialisation (higher = better; those ending in ``_window`` in the label-free layer
    window), the numbers of parameters, and the features.
    """
    about = read_json(FOLDER / "about.json")
    archs = {arch.id: arch for arch in map(Arch.from_json, pd.read_csv(FOLDER / "networks.csv")["architecture"])}
    scores = pd.read_csv(FOLDER / "scores.csv", index_col=["task", "id"])
    tables = {}
    for task, trainings in vit_six_trainings().groupby("task", sort=False):
        space = make_space(about["space"], about["image_size"], about["channels"], about["tasks"][task]["classes"])
        accuracy_A = trainings.groupby("id", sort=False)["accuracy"].mean()
        sample = Sample.of(scores.loc[task].loc[accuracy_A.index], space, [archs[id] for id in accuracy_A.index])
        network_A = pd.Series(accuracy_A.index, accuracy_A.index)
        tables[task] = PublishedTable(task, accuracy_A, sample, space, network_A)
    return tables


def vit_six_trainings() -> pd.DataFrame:
    """Return every training of the benchmark: columns ``task, id, seed, accuracy`` (validation, in [0, 1])."""
    return pd.read_csv(FOLDER / "trainings.csv")


def vit_six_layers(task: str) -> store.Scores:
    """Return the parts of L-SWAG on a task, layer by layer: of the proxies ``lswag_lambda`` and ``lswag_psi``.

    LibranasError for a task that the benchmark does not have.
    """
    path = FOLDER / f"{task}.h5"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.h5")))
        raise LibranasError(f"vit-six has no task {task}", f"it has {known}")
    return store.read(path)
