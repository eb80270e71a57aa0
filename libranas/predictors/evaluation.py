"""Judge combiners on architectures that were not used to fit anything.

Suffixes: A architectures, P proxies, F features, E evaluation architectures.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from libranas.core.errors import LibranasError
from libranas.core.random import stream_seed
from libranas.core.stats import kendall, partial_spearman, precision_at, spearman, spearman_interval
from libranas.predictors.base import Calibration, Sample, check_features, check_table
from libranas.predictors.libra import MIN_ARCHITECTURES
from libranas.predictors.registry import COMBINERS

#: What a ranking is judged by, columns of :class:`Evaluation`. p1, p5: share of the truly best 1 % and 5 % among the
#: best by the ranking.
MEASURES = ("spearman", "kendall", "p1", "p5", "regret")


@dataclass(frozen=True)
class Evaluation:
    """Quality of combiners on architectures not used for fitting.

    Attributes
    ----------
    summary : one row a method and number of labels: ``method, needs_labels, labels, spearman, low, high, kendall, p1,
        p5, regret, lacks, n_calibration, n_evaluation, splits``. Means over the splits; low and high are the 2.5 and
        97.5 percentiles of Spearman over the splits. Regret: best evaluation accuracy less that of the method's top
        architecture (mean over tied tops). ``lacks`` names what a method needs and does not get ("" if nothing): it is
        not judged, and its measures are NaN.
    per_split : one row a method, number of labels and split: ``method, n_calibration, split, spearman, kendall, p1, p5,
        regret``.
    """

    summary: pd.DataFrame
    per_split: pd.DataFrame


def judge(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The measures of a ranking of architectures, both of shape (E,)."""
    return {
        "spearman": spearman(predicted, truth),
        "kendall": kendall(predicted, truth),
        "p1": precision_at(predicted, truth, 0.01),
        "p5": precision_at(predicted, truth, 0.05),
        "regret": float(truth.max() - truth[predicted == predicted.max()].mean()),
    }


def evaluate(
    score_AP: pd.DataFrame,
    accuracy_A: pd.Series,
    params_A: pd.Series,
    calibration: int | Sequence[int],
    splits: int = 20,
    seed: int = 0,
    methods: Sequence[str] | None = None,
    *,
    feature_AF: pd.DataFrame | None = None,
    reference: Sample | None = None,
    network_A: pd.Series | None = None,
) -> Evaluation:
    """Fit every method on `calibration` random architectures, judge it on all others, `splits` times.

    Parameters
    ----------
    calibration : number of labels, or several; 0 judges the methods without labels, once, on all architectures
    feature_AF : features of the architectures, for learners
    reference : sample without labels that ranks are made in; the table itself if not given
    network_A : which network each architecture is, for tables in which several compute the same function: none of a
        labelled network is judged

    A split does not depend on the methods nor on the other numbers of labels. A method that cannot rank (all values
    equal) has a NaN Spearman in that split and in the summary. LibranasError if either part would have fewer than 10
    architectures, for unknown methods, and for unusable tables.
    """
    combiners = [COMBINERS.get_or_explain(name) for name in (COMBINERS if methods is None else methods)]
    score_AP, accuracy_A, params_A = check_table(score_AP, accuracy_A, params_A)
    table = Sample(score_AP, params_A, check_features(feature_AF, score_AP.index))
    network_A = np.arange(len(table)) if network_A is None else network_A.loc[score_AP.index].to_numpy()
    counts = [calibration] if isinstance(calibration, int | np.integer) else list(calibration)
    networks = len(np.unique(network_A))
    for count in counts:
        if 0 < count < MIN_ARCHITECTURES or not 0 <= count <= networks - MIN_ARCHITECTURES:
            raise LibranasError(
                f"{count} of {networks} architectures to calibrate: both parts need {MIN_ARCHITECTURES} or more",
                "label more architectures or change the number for calibration",
            )
    rows, summary = [], []
    for count in counts:
        lacks, judged = {}, []
        for split in range(splits if count else 1):
            fit, rest = parted(np.random.default_rng(stream_seed(seed, "ensemble", "split", split)), count, network_A)
            judged.append(len(rest))
            known = Calibration(table.take(fit), accuracy_A.iloc[fit], table if reference is None else reference)
            others, truth = table.take(rest), accuracy_A.iloc[rest].to_numpy(dtype=np.float64)
            for combiner in combiners:
                lacks[combiner.name] = ", ".join(combiner.lacks(known))
                if not lacks[combiner.name]:
                    predict = combiner.fit(known, stream_seed(seed, "ensemble", split, combiner.name))
                    place = {"method": combiner.name, "n_calibration": count, "split": split}
                    rows.append({**place, **judge(predict(others), truth)})
        for combiner in combiners:
            part = [row for row in rows if (row["method"], row["n_calibration"]) == (combiner.name, count)]
            summary.append(
                {
                    "method": combiner.name,
                    "needs_labels": combiner.needs_labels,
                    "labels": count if combiner.needs_labels else 0,
                    **_over_splits(part),
                    "lacks": lacks[combiner.name],
                    "n_calibration": count,
                    "n_evaluation": round(float(np.mean(judged))),
                    "splits": len(part),
                }
            )
    columns = ["method", "n_calibration", "split", *MEASURES]
    return Evaluation(pd.DataFrame(summary), pd.DataFrame(rows, columns=columns))


def _over_splits(rows: list[dict]) -> dict[str, float]:
    """Means of the measures over the splits, with the range of Spearman; NaN where a split has none."""
    table = pd.DataFrame(rows, columns=list(MEASURES))
    mean, rho = table.mean(skipna=False), table["spearman"]
    low, high = (rho.quantile(q) if rho.notna().all() else np.nan for q in (0.025, 0.975))
    return {"spearman": mean["spearman"], "low": low, "high": high, **mean.drop("spearman")}


def parted(rng: np.random.Generator, count: int, network_A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`count` random architectures, no two of one network, and all those of other networks; positions, ascending.

    Networks are drawn, not architectures: one that a table holds often is no more likely.
    """
    code_A, found = pd.factorize(network_A)
    chosen = rng.permutation(len(found))[:count]
    order_A = rng.permutation(len(code_A))
    _, first = np.unique(code_A[order_A], return_index=True)  # one architecture of every network
    return np.sort(order_A[first[chosen]]), np.flatnonzero(~np.isin(code_A, chosen))


def proxy_table(score_AP: pd.DataFrame, accuracy_A: pd.Series, params_A: pd.Series, seed: int = 0) -> pd.DataFrame:
    """Every proxy by itself against accuracy, the best first; no labels are used to choose anything.

    One row a proxy: ``proxy, n, spearman, low, high, kendall, partial_given_params, non_finite``. All signed;
    low and high: 95 % percentile bootstrap over architectures; the partial Spearman is NaN where #params
    fixes the ranks of the proxy (as for params itself); non-finite scores are counted and rank last.
    """
    score_AP, accuracy_A, params_A = check_table(score_AP, accuracy_A, params_A)
    accuracy, params = accuracy_A.to_numpy(dtype=np.float64), params_A.to_numpy(dtype=np.float64)
    rows = []
    for proxy in score_AP.columns:
        s = score_AP[proxy].to_numpy(dtype=np.float64)
        stream = stream_seed(seed, "ensemble", "bootstrap", proxy)
        low, high = spearman_interval(s, accuracy, seed=stream)
        rows.append(
            {
                "proxy": proxy,
                "n": len(s),
                "spearman": spearman(s, accuracy),
                "low": low,
                "high": high,
                "kendall": kendall(s, accuracy),
                "partial_given_params": partial_spearman(s, accuracy, params),
                "non_finite": int((~np.isfinite(s)).sum()),
            }
        )
    return pd.DataFrame(rows).sort_values(["spearman", "proxy"], ascending=[False, True], ignore_index=True)
