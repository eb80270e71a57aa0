"""Judge rankings of networks by accuracies: what the benchmarks of transformers have in common.

Suffixes: A architectures, R resamples.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement

import numpy as np
import pandas as pd

from libranas import scores as store
from libranas.core.random import stream_seed
from libranas.core.stats import (
    bootstrap_interval,
    kendall,
    partial_spearman,
    rank_last,
    spearman,
    spearman_interval,
)
from libranas.predictors.base import Calibration, Sample
from libranas.predictors.evaluation import evaluate, proxy_table
from libranas.predictors.registry import COMBINERS
from libranas.scores import layer_window as layers
from libranas.zero_cost.lswag import LayerWindow

#: Numbers of labels that combiners learn from, and how often networks are split into known and judged.
LABELS, SPLITS = (0, 10, 25, 50), 20
#: Labelled networks of a task that others learn from, at most, and splits of :func:`across_tasks`.
KNOWN, CROSSED = 100, 5
#: Rankings without labels: proxies, or combiners.
WITHOUT_LABELS = ("params", "flops", "consensus", "nngp", "jacov", "nwot", "lswag", "log_rank_all", "az_nas")
RESAMPLES = 1000
#: Bins of relative depth.
THIRDS = 3


def less(one_A, other_A, accuracy_A) -> float | np.ndarray:
    """How much better one ranking is than another; (...,) for stacks (..., A)."""
    return spearman(one_A, accuracy_A) - spearman(other_A, accuracy_A)


def mean_less(*columns: np.ndarray) -> float | np.ndarray:
    """Mean over tasks of :func:`less`; each task has three columns."""
    return np.mean([less(*columns[i : i + 3]) for i in range(0, len(columns), 3)], axis=0)


def proxies_of(name: str, task: str, score_AP: pd.DataFrame, accuracy_A: pd.Series) -> pd.DataFrame:
    """Judge every proxy: :func:`libranas.predictors.evaluation.proxy_table`, with intervals of Kendall's tau, partial
    correlations given #params and MACs, and paired differences from #params."""
    table = proxy_table(score_AP, accuracy_A, score_AP["params"]).set_index("proxy")
    sizes = score_AP["params"], score_AP["flops"]
    rows = {}
    for proxy, score_A in score_AP.items():
        low, high = bootstrap_interval(kendall, score_A, accuracy_A, seed=stream_seed(0, "kendall", proxy))
        arrays, seed = (score_A, sizes[0], accuracy_A), stream_seed(0, "against params", proxy)
        less_low, less_high = bootstrap_interval(less, *arrays, seed=seed, stacks=True)
        rows[proxy] = {
            "kendall_low": low,
            "kendall_high": high,
            "partial_given_sizes": partial_spearman(score_A, accuracy_A, *sizes),
            "less_params_difference": less(*arrays),
            "less_params_low": less_low,
            "less_params_high": less_high,
        }
    return table.join(pd.DataFrame.from_dict(rows, orient="index")).reset_index().assign(space=name, task=task)


def counted(proxies: pd.DataFrame) -> pd.DataFrame:
    """On how many tasks each proxy beats #params, row a proxy."""
    groups = proxies[proxies["proxy"] != "params"].groupby("proxy")
    columns = {
        "tasks": groups.size(),
        "mean_spearman": groups["spearman"].mean(),
        "mean_partial_given_params": groups["partial_given_params"].mean(),
        "higher": groups["less_params_difference"].apply(lambda d: int((d > 0).sum())),
        "better": groups["less_params_low"].apply(lambda low: int((low > 0).sum())),
        "worse": groups["less_params_high"].apply(lambda high: int((high < 0).sum())),
    }
    return pd.DataFrame(columns).sort_values("mean_spearman", ascending=False)


def by_window(scores: store.Scores, accuracies: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Judge L-SWAG in every window of thirds of the depth; a row each task, proxy and window.

    `scores` has the parts of L-SWAG by layer. One window is marked: the one that is chosen without labels.
    """
    rows, chosen = [], layers.choose_window(layers.curve(scores, THIRDS)).window
    for first, last in combinations_with_replacement(range(THIRDS), 2):
        window = LayerWindow(first, last, THIRDS)
        inside = layers.table(scores, window)
        for task, accuracy_A in accuracies.items():
            for proxy in ("lswag", "lswag_lambda"):
                value_A, place = inside.loc[accuracy_A.index, proxy], {"task": task, "proxy": proxy}
                place |= {"first": first, "last": last, "chosen": window == chosen}
                low, high = spearman_interval(value_A, accuracy_A, seed=stream_seed(0, "windows", task))
                rows.append({**place, "spearman": spearman(value_A, accuracy_A), "low": low, "high": high})
    return pd.DataFrame(rows).sort_values(["task", "first", "last", "proxy"], kind="stable")


def within(task: str, sample: Sample, accuracy_A: pd.Series) -> pd.DataFrame:
    """Judge combiners with labels of the same networks and task on the other networks."""
    labels = [count for count in LABELS if count + 10 <= len(sample)]
    seed, feature_AF = stream_seed(0, task), sample.feature_AF
    return evaluate(sample.score_AP, accuracy_A, sample.params_A, labels, SPLITS, seed, feature_AF=feature_AF).summary


def rankings(sample: Sample) -> pd.DataFrame:
    """Return the values of all rankings :data:`WITHOUT_LABELS`."""
    known = Calibration(sample.take(np.arange(0)), pd.Series(dtype=float), sample)
    combined = {name: COMBINERS[name].fit(known, 0)(sample) for name in WITHOUT_LABELS if name in COMBINERS}
    values = {name: combined.get(name, sample.score_AP.get(name)) for name in WITHOUT_LABELS}
    return pd.DataFrame(values, sample.params_A.index)


def label_free(of_task: Mapping[str, pd.DataFrame], methods: Sequence[str]) -> pd.DataFrame:
    """Judge rankings against #params and MACs, by task and, of several, in the mean.

    Parameters
    ----------
    of_task : task to its networks, the same ones in every task: a column for each method, ``accuracy`` and ``macs``

    Returns
    -------
    DataFrame, a row each task and method: Spearman, less that of #params and of MACs; Kendall's tau over the `pairs` of
    networks whose MACs differ by 10 % at most, where size cannot help, and less that of #params. Intervals are over
    networks.
    """
    rows = []
    groups = {task: [columns] for task, columns in of_task.items()}
    if len(groups) > 1:
        groups["mean"] = [*of_task.values()]
    for name, group in groups.items():
        near_AA = near_pairs(group[0]["macs"])
        signs = {m: np.mean([agreements(c[m], c["accuracy"]) for c in group], axis=0) for m in {*methods, "params"}}
        for method in methods:
            row = {"task": name, "method": method, "networks": len(group[0]), "pairs": int(near_AA.sum())}
            row["spearman"] = np.mean([spearman(c[method], c["accuracy"]) for c in group])
            for size in ("params", "flops"):
                arrays = [c[key] for c in group for key in (method, size, "accuracy")]
                row[f"less_{size}"] = mean_less(*arrays)
                seed = stream_seed(0, "label free", method, size)
                low, high = bootstrap_interval(mean_less, *arrays, n=RESAMPLES, seed=seed, stacks=True)
                row[f"less_{size}_low"], row[f"less_{size}_high"] = low, high
            for kind, signs_AA in {"tau": signs[method], "tau_less_params": signs[method] - signs["params"]}.items():
                row[kind], row[f"{kind}_low"], row[f"{kind}_high"] = mean_over_pairs(signs_AA, near_AA)
            rows.append(row)
    return pd.DataFrame(rows)


def near_pairs(macs_A: pd.Series) -> np.ndarray:
    """Mark the pairs of networks, once each, whose MACs differ by 10 % at most, (A, A)."""
    log_A = np.log(macs_A.to_numpy(dtype=float))
    return np.triu(np.abs(log_A[:, None] - log_A) < np.log(1.1), 1)


def agreements(value_A: pd.Series, accuracy_A: pd.Series) -> np.ndarray:
    """Return 1 for pairs that both order alike, -1 otherwise, 0 for ties, (A, A); what is not finite comes last."""
    orders = (np.sign(x[:, None] - x) for x in map(rank_last, (value_A, accuracy_A)))
    return np.prod(list(orders), axis=0)


def mean_over_pairs(value_AA: np.ndarray, pairs_AA: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Return the mean over marked pairs and its 95 % bootstrap interval over networks.

    A network that a resample draws k times counts k times in its pairs; it makes no pair with itself.
    """
    size = len(pairs_AA)
    drawn_RA = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), size=RESAMPLES).astype(float)
    drawn_RA = np.vstack([np.ones(size), drawn_RA])
    chosen_AA = pairs_AA.astype(float)
    sums = (np.vecdot(drawn_RA @ matrix, drawn_RA) for matrix in (value_AA * chosen_AA, chosen_AA))
    with np.errstate(invalid="ignore"):
        mean, *resampled = np.divide(*sums)
    return float(mean), *map(float, np.nanquantile(resampled, [0.025, 0.975]))


def own_ranks(sample: Sample) -> Sample:
    """The sample with each column as its rank fraction in its own space: what another space can be compared by."""

    def fraction(column: pd.Series) -> pd.Series:
        return column.rank() / (len(column) + 1)

    return Sample(sample.score_AP.apply(fraction), fraction(sample.params_A))


def transferable() -> list[str]:
    """Return #params and the combiners that learn from labels, but those of features, which mean nothing elsewhere."""
    learn = [name for name, c in COMBINERS.items() if c.needs_labels and "features" not in c.columns]
    return ["params", *(name for name in learn if name != "blend_proxies")]


def joined(samples: Sequence[Sample]) -> Sample:
    """Samples one below the other, their rows renamed: the same network stands in several."""
    renamed = [
        Sample(s.score_AP.add_suffix(f"-{k}", axis=0), s.params_A.add_suffix(f"-{k}")) for k, s in enumerate(samples)
    ]
    return Sample(pd.concat([s.score_AP for s in renamed]), pd.concat([s.params_A for s in renamed]))


def across_tasks(samples: Mapping[str, Sample], accuracies: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Judge combiners with labels of the other tasks of the same networks.

    In each split they learn from :data:`KNOWN` networks, or half of them, and are judged on the other ones.
    """
    ids = next(iter(accuracies.values())).index
    ranked = {task: own_ranks(sample) for task, sample in samples.items()}
    rows = []
    for split in range(CROSSED):
        order = np.random.default_rng(stream_seed(0, "across", split)).permutation(len(ids))
        count = min(KNOWN, len(ids) // 2)
        known, judged = np.sort(order[:count]), np.sort(order[count:])
        for task, accuracy_A in accuracies.items():
            others = [name for name in samples if name != task]
            labelled = joined([ranked[name].take(known) for name in others])
            fractions = [accuracies[name].iloc[known].rank(pct=True).to_numpy() for name in others]
            accuracy_C = pd.Series(np.concatenate(fractions), labelled.params_A.index)
            calibration = Calibration(labelled, accuracy_C, joined([ranked[task], labelled]))
            for method in transferable():
                if COMBINERS[method].lacks(calibration):
                    continue
                predict = COMBINERS[method].fit(calibration, stream_seed(0, "across", split, method))
                rho = spearman(predict(ranked[task].take(judged)), accuracy_A.iloc[judged])
                rows.append({"task": task, "method": method, "split": split, "spearman": rho})
    every = pd.DataFrame(rows).groupby(["task", "method"], sort=False)["spearman"]
    low, high = every.quantile(0.025), every.quantile(0.975)
    return pd.DataFrame({"spearman": every.mean(), "low": low, "high": high, "splits": every.size()}).reset_index()
