"""A benchmark of our own: vision transformers of a wide space, trained from scratch on six kinds of images.

docs/vision-transformers.md describes it; ``benchmarks/vit_six.py`` made it.
"""

from pathlib import Path

import pandas as pd

from libranas.core.arch import Arch
from libranas.core.files import read_json
from libranas.predictors.base import Sample
from libranas.published.tables import PublishedTable
from libranas.spaces import make_space

#: ``networks.csv`` (architectures), ``trainings.csv`` (accuracy of every training), ``scores.csv`` (every proxy on the
#: images of every task, higher = better; those ending in ``_window`` are of the label-free layer window), and
#: ``about.json`` (space, recipes, conditions).
FOLDER = Path(__file__).with_name("measured") / "vit_six"


def vit_six_trainings() -> pd.DataFrame:
    """Return every training of the benchmark: columns ``task, id, seed, accuracy`` (validation, in [0, 1])."""
    return pd.read_csv(FOLDER / "trainings.csv")


def vit_six() -> dict[str, PublishedTable]:
    """Return the benchmark: task to its networks, with scores, sizes, features and mean accuracies (in [0, 1]).

    A table has the networks that were trained on its task, with their ids as index.
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
