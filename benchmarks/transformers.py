"""What proxies and combiners are worth on vision transformers trained on six kinds of images.

    python benchmarks/transformers.py [--only noise proxies ...]

From the tables that ``vit_six.py`` made, to files in ``benchmarks/vit-six``:

* ``noise.csv``: what the seed of a training does, and the noise ceiling of each task;
* ``proxies.csv``: every proxy on every task, and given #params, or #params and MACs; ``counts.csv``: on how many tasks
  it is better and worse than #params;
* ``ablation.csv``: the parts of L-SWAG (the paper's Table 3); ``windows.csv``: L-SWAG in every window of thirds of the
  depth, beside the one that was chosen without labels;
* ``within.csv``: combiners with labels of the same task; ``across.csv``: combiners with labels of the five other
  tasks, of other networks than those that judge;
* ``label_free.csv``: rankings without any label of the task, less #params and less MACs, among all networks and among
  those of equal MACs; ``within_patch.csv``: the same where patches have one size,
  `other_consensus` being that of patches which differ;
* ``correlations.csv``: size and single choices;
* ``choices.csv``: accuracies by patch, width, depth, stem, pooling and positions, also at a third of the MACs;
  ``effects.csv``: what a choice is worth with the others held fixed.

A column ``ceiling`` has the noise ceiling of the task. The pages of docs/ are filled from these files.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.stats
from judging import (
    SPLITS,
    WITHOUT_LABELS,
    across_tasks,
    by_window,
    counted,
    label_free,
    proxies_of,
    rankings,
    within,
)
from record import fill_pages

from libranas.core.files import write_text
from libranas.core.random import stream_seed
from libranas.core.stats import ranks, spearman, spearman_interval
from libranas.labels.agreement import between_seeds, noise_ceiling
from libranas.predictors.base import Sample
from libranas.predictors.label_free import PATCH_PROXIES
from libranas.predictors.ranks import log_rank_within
from libranas.published import vit_six, vit_six_layers, vit_six_trainings
from libranas.published.ablations import table3
from libranas.published.tables import PublishedTable

HERE = Path(__file__).with_name("vit-six")
#: On so many networks, the first ones, the consensus was chosen.
CHOSEN_ON = 28
Tables = dict[str, PublishedTable]


def noise(tables: Tables) -> pd.DataFrame:
    """Deviations of seeds and networks, agreement of two seeds, and the noise ceiling; a row a task."""
    trainings = vit_six_trainings()
    rows = []
    for task, table in tables.items():
        own = trainings[trainings["task"] == task]
        agree = pd.Series(between_seeds(own, 0)).add_prefix("seeds_")
        rows.append({"task": task, "accuracy": table.accuracy_A.mean(), **noise_ceiling(own, 0), **agree})
    return pd.DataFrame(rows)


def proxies(tables: Tables) -> pd.DataFrame:
    return pd.concat(proxies_of("vit-six", task, t.sample.score_AP, t.accuracy_A) for task, t in tables.items())


def counts(_: Tables) -> pd.DataFrame:
    """From the file of :func:`proxies`, which takes minutes."""
    return counted(pd.read_csv(HERE / "proxies.csv")).reset_index()


def ablation(tables: Tables) -> pd.DataFrame:
    """Table 3 of the paper on every task."""
    parts = (table3(t.sample.score_AP, t.accuracy_A, t.sample.params_A).assign(task=task) for task, t in tables.items())
    return pd.concat(parts)


def windows(tables: Tables) -> pd.DataFrame:
    """L-SWAG of every window of layers."""
    return pd.concat(by_window(vit_six_layers(task), {task: table.accuracy_A}) for task, table in tables.items())


def labelled(tables: Tables) -> pd.DataFrame:
    """Combiners with labels of the same task."""
    return pd.concat(within(task, t.sample, t.accuracy_A).assign(task=task) for task, t in tables.items())


def normal_scores(sample: Sample) -> pd.DataFrame:
    """Each proxy as normal scores of its ranks among the networks of a task, but those that are the same for all."""
    score_AP = sample.score_AP[sample.varying].apply(lambda column: ranks(column))
    return (score_AP - 0.5).div(len(score_AP)).apply(scipy.stats.norm.ppf)


def chosen(known: list[tuple[pd.DataFrame, pd.Series]], most: int = 4) -> dict[str, float]:
    """Add up those proxies, at most `most`, that raise the mean Spearman over tasks most, one after the other."""
    names: list[str] = []
    shared = sorted(set.intersection(*(set(z_AP) for z_AP, _ in known)))

    def worth(some: list[str]) -> float:
        return float(np.mean([spearman(z_AP[some].sum(axis=1), accuracy_A) for z_AP, accuracy_A in known]))

    while len(names) < most:
        best = max((name for name in shared if name not in names), key=lambda name: worth([*names, name]))
        if names and worth([*names, best]) <= worth(names):
            break
        names.append(best)
    return dict.fromkeys(names, 1.0)


def weighted(known: list[tuple[pd.DataFrame, pd.Series]]) -> dict[str, float]:
    """Weights of a ridge regression of the normal scores of accuracies on those of all proxies."""
    from sklearn.linear_model import RidgeCV

    shared = sorted(set.intersection(*(set(z_AP) for z_AP, _ in known)))
    z_NP = np.vstack([z_AP[shared] for z_AP, _ in known])
    target_N = np.hstack([scipy.stats.norm.ppf((ranks(y_A) - 0.5) / len(y_A)) for _, y_A in known])
    return dict(zip(shared, RidgeCV(np.logspace(0, 5, 21)).fit(z_NP, target_N).coef_, strict=True))


#: Rankings that learn from other tasks.
LEARNED = {"chosen proxies": chosen, "weighted proxies": weighted}


def predictions(tables: Tables, task: str) -> pd.DataFrame:
    """Values of every ranking for the networks of a task; those that learn know neither the task nor the network."""
    sample, accuracy_A = tables[task].sample, tables[task].accuracy_A
    own_AP, values = normal_scores(sample), rankings(sample)
    others = [(normal_scores(table.sample), table.accuracy_A) for name, table in tables.items() if name != task]
    for name, learn in LEARNED.items():
        total_A = pd.Series(0.0, accuracy_A.index)
        for split in range(SPLITS):
            order = np.random.default_rng(stream_seed(0, "label free", split)).permutation(len(accuracy_A))
            for judged in np.array_split(accuracy_A.index[order], 2):
                kept = [(z_AP.index.difference(judged), z_AP, y_A) for z_AP, y_A in others]
                weights = learn([(z_AP.loc[ids], y_A[ids]) for ids, z_AP, y_A in kept])
                total_A[judged] += sum(weight * own_AP.loc[judged, proxy] for proxy, weight in weights.items())
        values[name] = total_A
    return values


def unlabelled(tables: Tables) -> pd.DataFrame:
    """Rankings without labels of the task, judged on the networks that chose nothing."""
    of_task = {}
    for task, table in tables.items():
        columns = predictions(tables, task).assign(accuracy=table.accuracy_A, macs=table.sample.score_AP["flops"])
        of_task[task] = columns.iloc[CHOSEN_ON:]
    return label_free(of_task, [*WITHOUT_LABELS, *LEARNED])


def within_patch(tables: Tables) -> pd.DataFrame:
    """Rankings without labels among the networks whose patches have one size."""
    parts = []
    for size in (8, 16):
        of_task = {}
        for task, table in tables.items():
            here = np.flatnonzero(2 ** table.sample.feature_AF["patch_size_log2"] == size)
            sample = table.sample.take(here)
            values = rankings(sample).assign(other_consensus=log_rank_within(sample, PATCH_PROXIES)(sample))
            of_task[task] = values.assign(accuracy=table.accuracy_A.iloc[here], macs=sample.score_AP["flops"])
        parts.append(label_free(of_task, [*WITHOUT_LABELS, "other_consensus"]).assign(patch=size))
    return pd.concat(parts)


def genes(table: PublishedTable) -> pd.DataFrame:
    """The choices of each network that are compared; a column each."""
    feature_AF = table.sample.feature_AF
    columns = {
        "patch": (2 ** feature_AF["patch_size_log2"]).astype(int),
        "width": feature_AF["embed_dim"].astype(int),
        "depth": feature_AF["depth"].astype(int),
        "stem": feature_AF["stem_linear"].map({1: "linear", 0: "conv"}),
        "pool": feature_AF["pool_token"].map({1: "token", 0: "average"}),
        "position": feature_AF["position_both"].map({1: "both", 0: "absolute"}),
    }
    return pd.DataFrame(columns)


def choices(tables: Tables) -> pd.DataFrame:
    """Mean and best accuracy of every choice: among all networks, those of one patch, and those of a third of MACs."""
    rows = []
    for task, table in tables.items():
        genes_A, macs_A = genes(table), table.sample.score_AP["flops"]
        third = pd.qcut(macs_A.rank(), 3, labels=["least MACs", "middle MACs", "most MACs"])
        groups = {"all": genes_A.index}
        groups |= {f"patch {size}": ids for size, ids in genes_A.groupby("patch").groups.items()}
        groups |= macs_A.groupby(third, observed=True).groups
        for group, ids in groups.items():
            for gene in genes_A:
                for choice, accuracy in table.accuracy_A[ids].groupby(genes_A.loc[ids, gene]):
                    place = {"task": task, "among": group, "gene": gene, "choice": choice, "networks": len(accuracy)}
                    rows.append(place | {"mean": accuracy.mean(), "best": accuracy.max()})
    return pd.DataFrame(rows)


def effects(tables: Tables) -> pd.DataFrame:
    """What a choice is worth with the others held fixed: coefficients of a linear regression, in accuracy."""
    rows = []
    for task, table in tables.items():
        of = genes(table)
        columns = {
            "MACs, twice": np.log2(table.sample.score_AP["flops"]),
            "width, twice": np.log2(of["width"]),
            "depth, one block more": of["depth"],
            "patch 4 for 8": of["patch"] == 4,
            "patch 16 for 8": of["patch"] == 16,
            "convolutional stem": of["stem"] == "conv",
            "class token for average": of["pool"] == "token",
            "relative positions, too": of["position"] == "both",
        }
        x_AC = np.column_stack([np.ones(len(of)), *columns.values()]).astype(float)
        effect, squares, *_ = np.linalg.lstsq(x_AC, table.accuracy_A.to_numpy())
        free = len(x_AC) - x_AC.shape[1]
        error = np.sqrt(np.diag(np.linalg.inv(x_AC.T @ x_AC)) * squares / free)
        half = scipy.stats.t.ppf(0.975, free) * error
        named = pd.DataFrame({"effect": effect, "low": effect - half, "high": effect + half}, ["", *columns])
        rows.append(named.iloc[1:].rename_axis("choice").reset_index().assign(task=task))
    return pd.concat(rows)


def across(tables: Tables) -> pd.DataFrame:
    """Combiners with labels of the five other tasks."""
    accuracies = {task: table.accuracy_A for task, table in tables.items()}
    return across_tasks({task: table.sample for task, table in tables.items()}, accuracies)


def correlations(tables: Tables) -> pd.DataFrame:
    """Spearman of size and of single choices with accuracy."""
    rows = []
    for task, table in tables.items():
        of = genes(table)
        columns = {"parameters": table.sample.params_A, "width": of["width"], "size of the patch": of["patch"]}
        columns |= {"MACs": table.sample.score_AP["flops"], "depth": of["depth"]}
        for choice, value_A in columns.items():
            low, high = spearman_interval(value_A, table.accuracy_A, seed=stream_seed(0, "choices", task))
            rho = spearman(value_A, table.accuracy_A)
            rows.append({"task": task, "choice": choice, "spearman": rho, "low": low, "high": high})
    return pd.DataFrame(rows)


#: Tables by name of the file.
PARTS: dict[str, Callable[[Tables], pd.DataFrame]] = {
    "noise": noise,
    "proxies": proxies,
    "counts": counts,
    "ablation": ablation,
    "windows": windows,
    "within": labelled,
    "across": across,
    "label_free": unlabelled,
    "within_patch": within_patch,
    "correlations": correlations,
    "choices": choices,
    "effects": effects,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="the tables to make (default: all)")
    tables = vit_six()
    for name in parser.parse_args().only:
        table = PARTS[name](tables)
        if "task" in table and name != "noise":  # what a perfect ranking would have
            ceilings = pd.read_csv(HERE / "noise.csv", index_col="task")["ceiling"]
            table["ceiling"] = table["task"].map({**ceilings, "mean": ceilings.mean()})
        write_text(HERE / f"{name}.csv", table.to_csv(index=False, float_format="%.4g"))
        print(f"== {name}\n{table.round(3).to_string()}", flush=True)
    fill_pages()


if __name__ == "__main__":
    main()
