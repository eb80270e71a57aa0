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
  those of equal MACs.
"""

import argparse
from collections.abc import Callable
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.stats
from vit_bench_101 import counted, less, own_ranks, proxies_of

from libranas.core.files import write_text
from libranas.core.random import stream_seed
from libranas.core.stats import bootstrap_interval, partial_spearman, ranks, spearman, spearman_interval
from libranas.labels.agreement import between_seeds, noise_ceiling
from libranas.predictors.base import Calibration, Sample
from libranas.predictors.evaluation import evaluate
from libranas.predictors.registry import COMBINERS
from libranas.published import vit_six, vit_six_layers, vit_six_trainings
from libranas.published.ablations import table3
from libranas.published.tables import PublishedTable
from libranas.scores import layer_window as layers
from libranas.zero_cost.lswag import LayerWindow

HERE = Path(__file__).with_name("vit-six")
SPLITS, LABELS, THIRDS = 20, (0, 10, 25, 50), 3
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
    parts = []
    for task, table in tables.items():
        score_AP, accuracy_A = table.sample.score_AP, table.accuracy_A
        sizes = score_AP["params"], score_AP["flops"]
        part = proxies_of("vit-six", task, score_AP, accuracy_A)
        part["partial_given_sizes"] = [partial_spearman(score_AP[p], accuracy_A, *sizes) for p in part["proxy"]]
        parts.append(part)
    return pd.concat(parts)


def counts(_: Tables) -> pd.DataFrame:
    """From the file of :func:`proxies`, which takes minutes."""
    return counted(pd.read_csv(HERE / "proxies.csv")).reset_index()


def ablation(tables: Tables) -> pd.DataFrame:
    """Table 3 of the paper on every task."""
    parts = (table3(t.sample.score_AP, t.accuracy_A, t.sample.params_A).assign(task=task) for task, t in tables.items())
    return pd.concat(parts)


def windows(tables: Tables) -> pd.DataFrame:
    """L-SWAG of every window of layers; a row a task, proxy and window."""
    rows = []
    for task, table in tables.items():
        scores = vit_six_layers(task)
        chosen = layers.choose_window(layers.curve(scores, THIRDS)).window
        for first, last in combinations_with_replacement(range(THIRDS), 2):
            window = LayerWindow(first, last, THIRDS)
            inside = layers.table(scores, window).loc[table.accuracy_A.index]
            for proxy in ("lswag", "lswag_lambda"):
                low, high = spearman_interval(inside[proxy], table.accuracy_A, seed=stream_seed(0, "windows", task))
                rows.append(
                    {
                        "task": task,
                        "proxy": proxy,
                        "first": first,
                        "last": last,
                        "chosen": window == chosen,
                        "spearman": spearman(inside[proxy], table.accuracy_A),
                        "low": low,
                        "high": high,
                    }
                )
    return pd.DataFrame(rows)


def within(tables: Tables) -> pd.DataFrame:
    """Combiners with labels of the same task."""
    parts = []
    for task, table in tables.items():
        sample, seed = table.sample, stream_seed(0, task)
        result = evaluate(
            sample.score_AP, table.accuracy_A, sample.params_A, LABELS, SPLITS, seed, feature_AF=sample.feature_AF
        )
        parts.append(result.summary.assign(task=task))
    return pd.concat(parts)


def joined(samples: list[Sample]) -> Sample:
    """Samples one below the other, their rows renamed: the same network stands in several."""
    renamed = [
        Sample(s.score_AP.add_suffix(f"-{k}", axis=0), s.params_A.add_suffix(f"-{k}")) for k, s in enumerate(samples)
    ]
    return Sample(pd.concat([s.score_AP for s in renamed]), pd.concat([s.params_A for s in renamed]))


def across(tables: Tables) -> pd.DataFrame:
    """Combiners with labels of the other tasks: of one half of the networks, judged on the other half."""
    names = [name for name, c in COMBINERS.items() if "features" not in c.columns and name != "blend_proxies"]
    ids = next(iter(tables.values())).accuracy_A.index
    ranked = {task: own_ranks(t.sample) for task, t in tables.items()}
    rows = []
    for split in range(SPLITS):
        half = np.random.default_rng(stream_seed(0, "across", split)).permutation(len(ids))
        known_ids, judged_ids = (ids[np.sort(part)] for part in np.array_split(half, 2))
        for task, table in tables.items():
            others = [name for name in tables if name != task]
            labelled = joined([taken(ranked[name], known_ids) for name in others])
            fractions = [tables[name].accuracy_A[known_ids].rank(pct=True).to_numpy() for name in others]
            accuracy_C = pd.Series(np.concatenate(fractions), labelled.params_A.index)
            known = Calibration(labelled, accuracy_C, joined([ranked[task], labelled]))
            for method in names:
                if COMBINERS[method].lacks(known):
                    continue
                predict = COMBINERS[method].fit(known, stream_seed(0, "across", split, method))
                rho = spearman(predict(taken(ranked[task], judged_ids)), table.accuracy_A[judged_ids])
                rows.append({"task": task, "method": method, "split": split, "spearman": rho})
    every = pd.DataFrame(rows).groupby(["task", "method"], sort=False)["spearman"]
    low, high = every.quantile(0.025), every.quantile(0.975)
    return pd.DataFrame({"spearman": every.mean(), "low": low, "high": high, "splits": every.size()}).reset_index()


def taken(sample: Sample, ids: pd.Index) -> Sample:
    return sample.take(sample.params_A.index.get_indexer(ids))


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


#: Rankings that learn from other tasks, and those that learn nothing: a proxy, or a combiner without labels.
LEARNED = {"chosen proxies": chosen, "weighted proxies": weighted}
FIXED = ("params", "flops", "consensus", "nngp", "jacov", "nwot", "lswag", "log_rank_all", "az_nas")


def predictions(tables: Tables, task: str) -> pd.DataFrame:
    """Values of every ranking for the networks of a task; those that learn know neither the task nor the network."""
    sample, accuracy_A = tables[task].sample, tables[task].accuracy_A
    own_AP = normal_scores(sample)
    known = Calibration(Sample(sample.score_AP.iloc[:0], sample.params_A.iloc[:0]), accuracy_A.iloc[:0], sample)
    combined = {name: COMBINERS[name].fit(known, 0)(sample) for name in FIXED if name in COMBINERS}
    fixed = {name: combined.get(name, sample.score_AP.get(name)) for name in FIXED}
    values = pd.DataFrame(fixed, accuracy_A.index)
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


def at_equal_macs(value_A: pd.Series, accuracy_A: pd.Series, macs_A: pd.Series) -> float:
    """Kendall's tau over the pairs of networks whose MACs differ by 10 % at most: there size cannot help."""
    i, j = np.triu_indices(len(macs_A), 1)
    ratio = macs_A.to_numpy()[i] / macs_A.to_numpy()[j]
    near = (ratio > 1 / 1.1) & (ratio < 1.1)
    signs = (np.sign(x.to_numpy()[i] - x.to_numpy()[j])[near] for x in (value_A, accuracy_A))
    return float(np.mean(np.prod(list(signs), axis=0)))


def mean_less(*columns: np.ndarray) -> float | np.ndarray:
    """Mean over tasks of :func:`less`; each task has three columns."""
    return np.mean([less(*columns[i : i + 3]) for i in range(0, len(columns), 3)], axis=0)


def label_free(tables: Tables) -> pd.DataFrame:
    """Rankings without labels of the task, against #params and MACs, by task and in the mean.

    Judged on the networks that chose nothing. Intervals are over networks, the same ones in every task.
    """
    of_task = {}
    for task, table in tables.items():
        columns = predictions(tables, task).assign(accuracy=table.accuracy_A, macs=table.sample.score_AP["flops"])
        of_task[task] = columns.iloc[CHOSEN_ON:]
    rows = []
    for name, group in {**{task: [columns] for task, columns in of_task.items()}, "mean": [*of_task.values()]}.items():
        for method in [*FIXED, *LEARNED]:
            row = {"task": name, "method": method, "networks": len(group[0])}
            row["spearman"] = np.mean([spearman(c[method], c["accuracy"]) for c in group])
            for size in ("params", "flops"):
                arrays = [c[key] for c in group for key in (method, size, "accuracy")]
                row[f"less_{size}"] = mean_less(*arrays)
                seed = stream_seed(0, "label free", method, size)
                low, high = bootstrap_interval(mean_less, *arrays, seed=seed, stacks=True)
                row[f"less_{size}_low"], row[f"less_{size}_high"] = low, high
            row["tau_at_equal_macs"] = np.mean([at_equal_macs(c[method], c["accuracy"], c["macs"]) for c in group])
            rows.append(row)
    return pd.DataFrame(rows)


#: Tables by name of the file.
PARTS: dict[str, Callable[[Tables], pd.DataFrame]] = {
    "noise": noise,
    "proxies": proxies,
    "counts": counts,
    "ablation": ablation,
    "windows": windows,
    "within": within,
    "across": across,
    "label_free": label_free,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="the tables to make (default: all)")
    tables = vit_six()
    for name in parser.parse_args().only:
        table = PARTS[name](tables)
        write_text(HERE / f"{name}.csv", table.to_csv(index=False, float_format="%.4g"))
        print(f"== {name}\n{table.round(3).to_string()}", flush=True)


if __name__ == "__main__":
    main()
