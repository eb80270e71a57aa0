"""Learners on a few dozen labels: ridge, trees, Gaussian processes, and a stack of them.

A learner fits (C, D) arrays, one a kind of column, to targets in (0, 1), the ranks of the accuracies.
Suffixes: A architectures, C labelled, D columns.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
import scipy  # parts of it are imported when they are used: slow, and a scoring job does without

from libranas.predictors import gaussian_process
from libranas.predictors.base import Calibration, Combiner, Predictor, Sample
from libranas.predictors.encoder import Encoder

Groups = list[np.ndarray]


class Model(Protocol):
    """A fitted learner. Models are plain objects, so that they can be written to a file."""

    def predict(self, groups: Groups) -> np.ndarray:
        """Return a value for each of A architectures from (A, D) arrays, one a kind of column."""


Learner = Callable[[Groups, np.ndarray, int], Model]


@dataclass(frozen=True)
class Linear:
    """A linear function of all columns."""

    weight_D: np.ndarray
    shift: float

    def predict(self, groups: Groups) -> np.ndarray:
        return np.hstack(groups) @ self.weight_D + self.shift


def ridge(groups: Groups, target_C: np.ndarray, seed: int) -> Linear:
    from sklearn.linear_model import RidgeCV

    model = RidgeCV(alphas=np.logspace(-1, 4, 16)).fit(np.hstack(groups), target_C)
    return Linear(model.coef_, float(model.intercept_))


class Boosted:
    """Boosted trees of LightGBM on all columns. A file holds their text, which gives the same values to the bit."""

    def __init__(self, booster):
        self.booster = booster

    def __getstate__(self) -> str:
        return self.booster.model_to_string()

    def __setstate__(self, text: str) -> None:
        import lightgbm

        self.booster = lightgbm.Booster(model_str=text)

    def predict(self, groups: Groups) -> np.ndarray:
        return self.booster.predict(np.hstack(groups), num_threads=1)


#: Small leaves and a strong average over rows and columns: there are 10 to 200 labels.
BOOSTING = {
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


def boosting(groups: Groups, target_C: np.ndarray, seed: int) -> Boosted:
    import lightgbm

    options = {**BOOSTING, "objective": "regression", "seed": seed % 2**31}
    return Boosted(lightgbm.train(options, lightgbm.Dataset(np.hstack(groups), target_C), num_boost_round=200))


def lambdarank(groups: Groups, target_C: np.ndarray, seed: int) -> Boosted:
    import lightgbm

    grades = min(31, len(target_C))
    grade_C = np.minimum((target_C * grades).astype(int), grades - 1)
    options = {
        **BOOSTING,
        "objective": "lambdarank",
        "label_gain": list(range(grades)),  # every grade up is worth the same: the whole order counts
        "lambdarank_truncation_level": len(target_C),
        "bagging_fraction": 1.0,  # one query: rows cannot be left out
        "seed": seed % 2**31,
    }
    data = lightgbm.Dataset(np.hstack(groups), grade_C, group=[len(target_C)])
    return Boosted(lightgbm.train(options, data, num_boost_round=200))


@dataclass(frozen=True)
class Trees:
    """Predicts what a forest of scikit-learn does, to the last digit, without its preparations for each tree: where a
    search asks for one architecture at a time, they cost far more than the trees."""

    trees: list

    @classmethod
    def of(cls, forest) -> "Trees":
        return cls([tree.tree_ for tree in forest.estimators_])

    def predict(self, groups: Groups) -> np.ndarray:
        x_AD = np.ascontiguousarray(np.hstack(groups), dtype=np.float32)
        return sum((tree.predict(x_AD)[:, 0] for tree in self.trees), np.zeros(len(x_AD))) / len(self.trees)


def forest(groups: Groups, target_C: np.ndarray, seed: int) -> Trees:
    from sklearn.ensemble import RandomForestRegressor

    model = RandomForestRegressor(200, max_features=0.3, random_state=seed % 2**31)
    return Trees.of(model.fit(np.hstack(groups), target_C))


def _extra_forest(x_CD: np.ndarray, target_C: np.ndarray, seed: int):
    from sklearn.ensemble import ExtraTreesRegressor

    return ExtraTreesRegressor(100, max_features=0.3, random_state=seed % 2**31).fit(x_CD, target_C)


def extra_trees(groups: Groups, target_C: np.ndarray, seed: int) -> Trees:
    return Trees.of(_extra_forest(np.hstack(groups), target_C, seed))


def gp(groups: Groups, target_C: np.ndarray, seed: int) -> gaussian_process.GaussianProcess:
    return gaussian_process.fit(groups, target_C)


@dataclass(frozen=True)
class Weighted:
    """A Gaussian process on all columns, each times a weight."""

    process: gaussian_process.GaussianProcess
    weight_D: np.ndarray

    def predict(self, groups: Groups) -> np.ndarray:
        return self.process.predict([np.hstack(groups) * self.weight_D])


def gp_weighted(groups: Groups, target_C: np.ndarray, seed: int) -> Weighted:
    """Weight columns by the square root of their importance to extremely random trees."""
    x_CD = np.hstack(groups)
    weight_D = np.sqrt(_extra_forest(x_CD, target_C, seed).feature_importances_ * x_CD.shape[1])
    return Weighted(gaussian_process.fit([x_CD * weight_D], target_C), weight_D)


@dataclass(frozen=True)
class Stack:
    """A weighted sum of models."""

    members: list[tuple[float, Model]]  # weight, model

    def predict(self, groups: Groups) -> np.ndarray:
        return sum(weight * (model.predict(groups) - 0.5) for weight, model in self.members)


STACKED = (ridge, boosting, gp)
FOLDS = 5


def stack(groups: Groups, target_C: np.ndarray, seed: int) -> Stack:
    """Weight members by non-negative least squares on predictions for architectures that they were not fitted on."""
    n = len(target_C)
    fold_C = np.random.default_rng(seed).permutation(n) % FOLDS
    held_out = np.empty((n, len(STACKED)))
    for fold in range(FOLDS):
        rest, out = fold_C != fold, fold_C == fold
        for i, member in enumerate(STACKED):
            model = member([g[rest] for g in groups], target_C[rest], seed)
            held_out[out, i] = model.predict([g[out] for g in groups])
    # about 0.5, the mean of the targets: a member that says nothing costs nothing
    weights = scipy.optimize.nnls(held_out - 0.5, target_C - 0.5)[0]
    if not weights.any():
        weights = np.ones(len(STACKED))
    return Stack([(float(w), member(groups, target_C, seed)) for w, member in zip(weights, STACKED, strict=True)])


def target(accuracy_C: pd.Series) -> np.ndarray:
    """Return the ranks of accuracies, in (0, 1)."""
    return (accuracy_C.rank().to_numpy() - 0.5) / len(accuracy_C)


@dataclass(frozen=True)
class Learned:
    """Function of a sample: encode its columns, then predict with a fitted model."""

    encode: Encoder
    model: Model

    def __call__(self, sample: Sample) -> np.ndarray:
        return self.model.predict(self.encode(sample))


def _combiner(name: str, title: str, learner: Learner, shown: bool = False) -> Combiner:
    def fit(known: Calibration, seed: int) -> Predictor:
        encode = Encoder(known.usual)
        return Predictor(
            encode.proxies, Learned(encode, learner(encode(known.labelled), target(known.accuracy_C), seed))
        )

    return Combiner(name, title, fit, shown=shown)


RIDGE = _combiner("ridge_ranks", "ridge on ranks", ridge, shown=True)
LIGHTGBM = _combiner("lightgbm", "LightGBM", boosting, shown=True)
LAMBDARANK = _combiner("lambdarank", "LambdaRank", lambdarank)
FOREST = _combiner("forest", "random forest", forest)
EXTRA_TREES = _combiner("extra_trees", "extra-trees", extra_trees)
GP = _combiner("gp", "Gaussian process", gp)
GP_WEIGHTED = _combiner("gp_weighted", "Gaussian process, weighted columns", gp_weighted)
STACK = _combiner("stack", "stack of learners", stack)
