"""Learners on a few dozen labels: ridge, trees, Gaussian processes, and a stack of them.

Shape suffixes: A architectures, C labelled, D columns.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy  # parts of it are imported when they are used: slow, and a scoring job does without

from libranas.predictors import gaussian_process
from libranas.predictors.base import Calibration, Predictor
from libranas.predictors.encoder import Encoder

#: ``learner(groups, target_C, seed)``: fits to (C, D) arrays and targets in (0, 1), gives a function of such arrays.
Fitted = Callable[[list[np.ndarray]], np.ndarray]
Learner = Callable[[list[np.ndarray], np.ndarray, int], Fitted]


def _flat(fit: Callable[[np.ndarray, np.ndarray, int], object]) -> Learner:
    """A learner that takes all columns alike, from a function that gives a model with ``predict``."""

    def learner(groups: list[np.ndarray], target_C: np.ndarray, seed: int) -> Fitted:
        model = fit(np.hstack(groups), target_C, seed % 2**31)
        return lambda others: np.asarray(model.predict(np.hstack(others)), dtype=np.float64)

    return learner


def _fit_ridge(x_CD: np.ndarray, target_C: np.ndarray, seed: int):
    from sklearn.linear_model import RidgeCV

    return RidgeCV(alphas=np.logspace(-1, 4, 16)).fit(x_CD, target_C)


#: Small leaves and a strong average over rows and columns: there are 10 to 200 labels.
TREES = {
    "learning_rate": 0.05,
    "num_leaves": 7,
    "min_data_in_leaf": 3,
    "min_data_in_bin": 1,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "feature_fraction": 0.5,
    "lambda_l2": 1.0,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


def _fit_lightgbm(x_CD: np.ndarray, target_C: np.ndarray, seed: int):
    import lightgbm

    options = {**TREES, "objective": "regression", "seed": seed}
    return lightgbm.train(options, lightgbm.Dataset(x_CD, target_C), num_boost_round=200)


def _fit_lambdarank(x_CD: np.ndarray, target_C: np.ndarray, seed: int):
    import lightgbm

    grades = min(31, len(target_C))
    grade_C = np.minimum((target_C * grades).astype(int), grades - 1)
    options = {
        **TREES,
        "objective": "lambdarank",
        "label_gain": list(range(grades)),  # every grade up is worth the same: the whole order counts
        "lambdarank_truncation_level": len(target_C),
        "bagging_fraction": 1.0,  # one query: rows cannot be left out
        "seed": seed,
    }
    return lightgbm.train(options, lightgbm.Dataset(x_CD, grade_C, group=[len(target_C)]), num_boost_round=200)


@dataclass(frozen=True)
class Trees:
    """Predicts what a forest of scikit-learn does, to the last digit, without its preparations for each tree: where a
    search asks for one architecture at a time, they cost far more than the trees."""

    trees: list

    def predict(self, x_AD: np.ndarray) -> np.ndarray:
        x_AD = np.ascontiguousarray(x_AD, dtype=np.float32)
        return sum((tree.predict(x_AD)[:, 0] for tree in self.trees), np.zeros(len(x_AD))) / len(self.trees)


def _fit_forest(x_CD: np.ndarray, target_C: np.ndarray, seed: int):
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(200, max_features=0.3, random_state=seed).fit(x_CD, target_C)
    return Trees([tree.tree_ for tree in forest.estimators_])


def _fit_extra_trees(x_CD: np.ndarray, target_C: np.ndarray, seed: int):
    from sklearn.ensemble import ExtraTreesRegressor

    return ExtraTreesRegressor(100, max_features=0.3, random_state=seed).fit(x_CD, target_C)


def _gp(groups: list[np.ndarray], target_C: np.ndarray, seed: int) -> Fitted:
    return gaussian_process.fit(groups, target_C).predict


def _gp_weighted(groups: list[np.ndarray], target_C: np.ndarray, seed: int) -> Fitted:
    """A Gaussian process on columns weighted by the square root of their importance to extremely random trees."""
    x_CD = np.hstack(groups)
    weight_D = np.sqrt(_fit_extra_trees(x_CD, target_C, seed % 2**31).feature_importances_ * x_CD.shape[1])
    process = gaussian_process.fit([x_CD * weight_D], target_C)
    return lambda others: process.predict([np.hstack(others) * weight_D])


_ridge, _lightgbm, _lambdarank = _flat(_fit_ridge), _flat(_fit_lightgbm), _flat(_fit_lambdarank)
_forest, _extra_trees = _flat(_fit_forest), _flat(_fit_extra_trees)
#: Members of the stack, and of the blend.
STACKED = (_ridge, _lightgbm, _gp)
FOLDS = 5


def _stack(groups: list[np.ndarray], target_C: np.ndarray, seed: int) -> Fitted:
    """Members weighted by non-negative least squares on predictions for architectures that they were not fitted on."""
    n = len(target_C)
    fold_C = np.random.default_rng(seed).permutation(n) % FOLDS
    held_out = np.empty((n, len(STACKED)))
    for fold in range(FOLDS):
        rest, out = fold_C != fold, fold_C == fold
        for i, member in enumerate(STACKED):
            fitted = member([g[rest] for g in groups], target_C[rest], seed)
            held_out[out, i] = fitted([g[out] for g in groups])
    # about 0.5, the mean of the targets: a member that says nothing costs nothing
    weight = scipy.optimize.nnls(held_out - 0.5, target_C - 0.5)[0]
    if not weight.any():
        weight = np.ones(len(STACKED))
    members = [member(groups, target_C, seed) for member in STACKED]
    return lambda others: sum(w * (member(others) - 0.5) for w, member in zip(weight, members, strict=True))


def _target(accuracy_C: pd.Series) -> np.ndarray:
    return (accuracy_C.rank().to_numpy() - 0.5) / len(accuracy_C)


def _learned(learner: Learner) -> Callable[[Calibration, int], Predictor]:
    def fit(known: Calibration, seed: int) -> Predictor:
        encode = Encoder(known.usual)
        fitted = learner(encode(known.labelled), _target(known.accuracy_C), seed)
        return Predictor(encode.proxies, lambda sample: fitted(encode(sample)))

    return fit
