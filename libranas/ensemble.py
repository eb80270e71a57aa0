"""LIBRA next to its competitors: rankings of architectures that were not used to fit anything.

Every combiner learns from calibration architectures only (scores, sizes and, if it needs them,
accuracies) and then ranks others from their scores and sizes. LIBRA reads accuracies, so the fair
competitors are learners with the same labels (ridge regression and LightGBM on ranks), and the numbers to
beat are those that need none (#params, log-rank of all proxies).

Shape suffixes: A architectures, P proxies, C calibration and E evaluation architectures. Tables as in
:mod:`libranas.libra`: ``score_AP`` with higher = better, accuracies and #params as Series over the same ids.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from libranas.errors import LibranasError
from libranas.libra import MIN_ARCHITECTURES, check_table, choose, log_rank
from libranas.provenance import stream_seed
from libranas.stats import bootstrap_interval, kendall, partial_spearman, rank_last, spearman


@dataclass(frozen=True)
class Calibration:
    """What a combiner may learn from: C architectures with scores, accuracies and numbers of parameters."""

    score_CP: pd.DataFrame
    accuracy_C: pd.Series
    params_C: pd.Series


@dataclass(frozen=True)
class Combiner:
    """A way to rank architectures.

    ``fit_predict(calibration, score_EP, params_E, seed)`` returns a value for each evaluation architecture,
    shape (E,), higher = better; only its order counts. Accuracies of evaluation architectures are not among
    the arguments. ``needs_labels`` says whether the calibration accuracies are used.
    """

    name: str
    needs_labels: bool
    fit_predict: Callable[[Calibration, pd.DataFrame, pd.Series, int], np.ndarray]


def _z1(known: Calibration, score_EP: pd.DataFrame, params_E: pd.Series, seed: int) -> np.ndarray:
    rho = {name: spearman(known.score_CP[name], known.accuracy_C) for name in known.score_CP.columns}
    # a constant proxy has no rho and can only be best if there is nothing else
    best = max(sorted(rho), key=lambda name: -np.inf if np.isnan(rho[name]) else rho[name])
    return rank_last(score_EP[best])


def _params(known: Calibration, score_EP: pd.DataFrame, params_E: pd.Series, seed: int) -> np.ndarray:
    return params_E.to_numpy(dtype=np.float64)


def _log_rank_all(known: Calibration, score_EP: pd.DataFrame, params_E: pd.Series, seed: int) -> np.ndarray:
    return log_rank(score_EP).to_numpy()


def _libra(mode: str) -> Callable[[Calibration, pd.DataFrame, pd.Series, int], np.ndarray]:
    def fit_predict(known: Calibration, score_EP: pd.DataFrame, params_E: pd.Series, seed: int) -> np.ndarray:
        choice = choose(known.score_CP, known.accuracy_C, known.params_C, mode, seed=seed)
        return log_rank(score_EP[choice.proxies]).to_numpy()

    return fit_predict


def _fractions(known: pd.Series, values: pd.Series) -> np.ndarray:
    """Share of the known values below each value (ties half), in [0, 1]; non-finite ones below all finite."""
    base, x = (s.to_numpy(dtype=np.float64) for s in (known, values))
    base, x = (np.where(np.isfinite(v), v, -np.inf) for v in (base, x))
    base = np.sort(base)
    return (np.searchsorted(base, x, side="left") + np.searchsorted(base, x, side="right")) / (2 * len(base))


def _rank_features(known: Calibration, score_EP: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (C, P) and (E, P), target (C,): values as fractions of the calibration sample below."""
    score_CP, names = known.score_CP, known.score_CP.columns
    feature_CP = np.column_stack([_fractions(score_CP[p], score_CP[p]) for p in names])
    feature_EP = np.column_stack([_fractions(score_CP[p], score_EP[p]) for p in names])
    return feature_CP, feature_EP, _fractions(known.accuracy_C, known.accuracy_C)


def _ridge(known: Calibration, score_EP: pd.DataFrame, params_E: pd.Series, seed: int) -> np.ndarray:
    from sklearn.linear_model import RidgeCV

    feature_CP, feature_EP, target_C = _rank_features(known, score_EP)
    return RidgeCV(alphas=np.logspace(-3, 3, 13)).fit(feature_CP, target_C).predict(feature_EP)


def _lightgbm(known: Calibration, score_EP: pd.DataFrame, params_E: pd.Series, seed: int) -> np.ndarray:
    import lightgbm

    feature_CP, feature_EP, target_C = _rank_features(known, score_EP)
    # small leaves and a strong average over rows and features: the calibration set has 20 to 200 rows
    options = {
        "objective": "regression",
        "learning_rate": 0.05,
        "num_leaves": 7,
        "min_data_in_leaf": 3,
        "min_data_in_bin": 1,
        "bagging_fraction": 0.7,
        "bagging_freq": 1,
        "feature_fraction": 0.5,
        "lambda_l2": 1.0,
        "seed": seed % 2**31,
        "num_threads": 1,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    model = lightgbm.train(options, lightgbm.Dataset(feature_CP, target_C), num_boost_round=200)
    return model.predict(feature_EP)


#: Every combiner by name, the label-free ones first.
COMBINERS = {
    c.name: c
    for c in (
        Combiner("params", False, _params),
        Combiner("log_rank_all", False, _log_rank_all),
        Combiner("z1", True, _z1),
        Combiner("libra_literal", True, _libra("literal")),
        Combiner("libra_corrected", True, _libra("corrected")),
        Combiner("ridge_ranks", True, _ridge),
        Combiner("lightgbm", True, _lightgbm),
    )
}


@dataclass(frozen=True)
class Evaluation:
    """Quality of combiners on architectures not used for fitting.

    Attributes
    ----------
    summary : one row a method: ``method, needs_labels, labels, spearman, low, high, kendall, regret,
        n_calibration, n_evaluation, splits``. Means over the splits; low and high are the 2.5 and 97.5
        percentiles of Spearman over the splits (how much one random choice of calibration architectures
        matters; not a confidence interval of the mean). Regret: best evaluation accuracy less that of the
        method's top architecture (mean over tied tops), in units of accuracy.
    per_split : one row a method and split: ``method, split, spearman, kendall, regret``.
    """

    summary: pd.DataFrame
    per_split: pd.DataFrame


def evaluate(
    score_AP: pd.DataFrame,
    accuracy_A: pd.Series,
    params_A: pd.Series,
    calibration: int,
    splits: int = 20,
    seed: int = 0,
    methods: Sequence[str] | None = None,
) -> Evaluation:
    """Fit every method on `calibration` random architectures, judge it on all others, `splits` times.

    Does not depend on the order of rows or columns. A method that cannot rank (all values equal) has a NaN
    Spearman in that split, and NaN in the summary: it is not dropped. Raises LibranasError if either part
    would have fewer than 10 architectures, for unknown methods, and for unusable tables.
    """
    methods = list(COMBINERS) if methods is None else list(methods)
    if unknown := [m for m in methods if m not in COMBINERS]:
        raise LibranasError(f"unknown combiners {unknown}", f"known: {', '.join(COMBINERS)}")
    score_AP, accuracy_A, params_A = check_table(score_AP, accuracy_A, params_A)
    n = len(score_AP)
    if not MIN_ARCHITECTURES <= calibration <= n - MIN_ARCHITECTURES:
        raise LibranasError(
            f"{calibration} of {n} architectures to calibrate: both parts need {MIN_ARCHITECTURES} or more",
            "label more architectures or change the number for calibration",
        )
    rows = []
    for split in range(splits):
        order = np.random.default_rng(stream_seed(seed, "ensemble", "split", split)).permutation(n)
        fit, rest = np.sort(order[:calibration]), np.sort(order[calibration:])
        known = Calibration(score_AP.iloc[fit], accuracy_A.iloc[fit], params_A.iloc[fit])
        truth = accuracy_A.iloc[rest].to_numpy(dtype=np.float64)
        for method in methods:
            predicted = COMBINERS[method].fit_predict(
                known, score_AP.iloc[rest], params_A.iloc[rest], stream_seed(seed, "ensemble", split, method)
            )
            regret = truth.max() - truth[predicted == predicted.max()].mean()
            rows.append((method, split, spearman(predicted, truth), kendall(predicted, truth), regret))
    per_split = pd.DataFrame(rows, columns=["method", "split", "spearman", "kendall", "regret"])
    summary = [
        {
            "method": method,
            "needs_labels": COMBINERS[method].needs_labels,
            "labels": calibration if COMBINERS[method].needs_labels else 0,
            "spearman": part["spearman"].mean(skipna=False),
            "low": np.quantile(part["spearman"], 0.025),
            "high": np.quantile(part["spearman"], 0.975),
            "kendall": part["kendall"].mean(skipna=False),
            "regret": part["regret"].mean(),
            "n_calibration": calibration,
            "n_evaluation": n - calibration,
            "splits": splits,
        }
        for method, part in ((m, per_split[per_split["method"] == m]) for m in methods)
    ]
    return Evaluation(pd.DataFrame(summary), per_split)


def proxy_table(
    score_AP: pd.DataFrame, accuracy_A: pd.Series, params_A: pd.Series, seed: int = 0, resamples: int = 1000
) -> pd.DataFrame:
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
        low, high = bootstrap_interval(spearman, s, accuracy, n=resamples, seed=stream)
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


@dataclass(frozen=True)
class Verdict:
    """LIBRA's choice and how it fares.

    Attributes
    ----------
    choice : JSON-ready record of :class:`libranas.libra.Choice` with ``proxies``, ``calibration`` (ids that chose)
        and ``held_out``: Spearman of the chosen combination on the other architectures, with interval and n
    methods : see :class:`Evaluation` (``summary``)
    proxies : see :func:`proxy_table`; all labelled architectures
    """

    choice: dict
    methods: pd.DataFrame
    proxies: pd.DataFrame


def choose_and_judge(
    score_AP: pd.DataFrame, accuracy_A: pd.Series, params_A: pd.Series, settings: dict, seed: int
) -> Verdict:
    """Choose on some labelled architectures, judge on the others, next to every other method.

    Parameters
    ----------
    score_AP, params_A : the sample; only architectures with an accuracy are used
    settings : config section ``libra`` (mode, calibration, splits, window, duplicate)

    Raises
    ------
    LibranasError
        If accuracies name unknown architectures, or too few have one.
    """
    if len(unknown := accuracy_A.index.difference(score_AP.index)):
        raise LibranasError(
            f"{len(unknown)} architectures with an accuracy have no scores, e.g. {unknown[0]}",
            "score the same sample that the benchmark was made for (delete the benchmark's files to redo it)",
        )
    score_AP, accuracy_A, params_A = check_table(score_AP.loc[accuracy_A.index], accuracy_A, params_A[accuracy_A.index])
    # Judged first: it checks that both parts are large enough.
    evaluation = evaluate(score_AP, accuracy_A, params_A, settings["calibration"], settings["splits"], seed)
    order = np.random.default_rng(stream_seed(seed, "libra", "calibration")).permutation(len(accuracy_A))
    fit, rest = order[: settings["calibration"]], order[settings["calibration"] :]
    choice = choose(
        score_AP.iloc[fit],
        accuracy_A.iloc[fit],
        params_A.iloc[fit],
        settings["mode"],
        window=settings["window"],
        duplicate=settings["duplicate"],
        seed=stream_seed(seed, "libra", "gain"),
    )
    ranking = log_rank(score_AP.iloc[rest][choice.proxies]).to_numpy()
    truth = accuracy_A.iloc[rest].to_numpy(dtype=np.float64)
    low, high = bootstrap_interval(spearman, ranking, truth, seed=stream_seed(seed, "libra", "bootstrap"))
    record = {
        **asdict(choice),
        "proxies": choice.proxies,
        "calibration": sorted(accuracy_A.index[fit]),
        "held_out": {"spearman": spearman(ranking, truth), "low": low, "high": high, "n": len(rest)},
    }
    return Verdict(record, evaluation.summary, proxy_table(score_AP, accuracy_A, params_A, seed))
