"""Combiners: ways to make one ranking of architectures from proxies, sizes and, where some are known, accuracies.

Every combiner is fitted once, on a :class:`Calibration` (labelled architectures and a reference sample without labels),
and gives a predictor: a function from a :class:`Sample` of any architectures to values, higher = better, in which the
value of one does not depend on the others in the sample. So it ranks a table and serves as the fitness of a search
alike. Sums of ranks are ranks among the reference sample.

Learners see what can be had without training a network: proxies and #params as normal scores of their ranks in the
reference sample, and, where they are given, the features of the architecture (``space.features``), standardised.
Their target is the rank of the accuracy. Scores that are not finite rank below all finite ones.

Shape suffixes: A architectures, C labelled, R reference, P proxies, F features, D columns of a learner.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy  # parts of it are imported when they are used: slow, and a scoring job does without

from libranas import gaussian_process
from libranas.arch import Arch
from libranas.errors import LibranasError
from libranas.libra import ReferenceRanks, choose
from libranas.spaces import Space
from libranas.stats import rank_last, spearman

# -- what is known -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """What is known of architectures without training them: tables over the same ids in the same order.

    Attributes
    ----------
    score_AP : proxies, higher = better
    params_A : numbers of parameters, in any unit
    feature_AF : numbers that describe the architecture, finite; None if there are none
    """

    score_AP: pd.DataFrame
    params_A: pd.Series
    feature_AF: pd.DataFrame | None = None

    @classmethod
    def of(cls, score_AP: pd.DataFrame, space: Space, archs: Iterable[Arch]) -> "Sample":
        """Of networks of a search space, `archs` in the order of the rows: sizes and features are the space's."""
        rows = [(space.params(arch), space.features(arch)) for arch in archs]
        params, features = zip(*rows, strict=True)
        return cls(score_AP, pd.Series(params, score_AP.index), pd.DataFrame(list(features), score_AP.index))

    @classmethod
    def one(cls, scores: Mapping[str, float], params: float, features: Mapping[str, float] | None = None) -> "Sample":
        """Of a single architecture, for a search."""

        def row(values: Mapping[str, float]) -> pd.DataFrame:  # from an array: from a dict it takes three times as long
            names, numbers = zip(*values.items(), strict=True) if len(values) else ((), ())
            return pd.DataFrame(np.array([numbers], dtype=np.float64), columns=pd.Index(names, dtype=object))

        return cls(row(scores), pd.Series([params]), None if features is None else row(features))

    def __len__(self) -> int:
        return len(self.params_A)

    def take(self, positions: np.ndarray) -> "Sample":
        features = None if self.feature_AF is None else self.feature_AF.iloc[positions]
        return Sample(self.score_AP.iloc[positions], self.params_A.iloc[positions], features)


@dataclass(frozen=True)
class Calibration:
    """What a combiner may learn from.

    Attributes
    ----------
    labelled : C architectures, possibly none
    accuracy_C : their accuracies
    reference : architectures without labels that say what is usual; the labelled ones if not given
    """

    labelled: Sample
    accuracy_C: pd.Series
    reference: Sample | None = None

    @property
    def usual(self) -> Sample:
        return self.labelled if self.reference is None else self.reference


@dataclass(frozen=True)
class Predictor:
    """What a fitted combiner is: called with a sample it gives a value for each architecture, higher = better.

    Attributes
    ----------
    proxies : those that it looks at; candidates of a search need no others
    """

    proxies: tuple[str, ...]
    values: Callable[[Sample], np.ndarray]

    def __call__(self, sample: Sample) -> np.ndarray:
        return self.values(sample)


@dataclass(frozen=True)
class Combiner:
    """A way to rank architectures.

    Attributes
    ----------
    name : of the method
    needs_labels : whether it uses the accuracies
    fit : ``fit(known, seed)`` gives a :class:`Predictor`
    columns : proxies that it cannot do without, nor with all values equal; "features" stands for the features of the
        architecture
    """

    name: str
    needs_labels: bool
    fit: Callable[[Calibration, int], Predictor]
    columns: tuple[str, ...] = ()

    def lacks(self, known: Calibration) -> tuple[str, ...]:
        """What is not there that this combiner needs, in words; empty if it can be fitted."""
        there = set(_usable(known.usual.score_AP))
        if known.usual.feature_AF is not None:
            there.add("features")
        missing = tuple(c for c in self.columns if c not in there)
        return missing + (("labels",) if self.needs_labels and not len(known.labelled) else ())


# -- without labels ----------------------------------------------------------------------------------------


def _params(known: Calibration, seed: int) -> Predictor:
    return Predictor((), lambda sample: sample.params_A.to_numpy(dtype=np.float64))


def _single(proxy: str) -> Callable[[Calibration, int], Predictor]:
    return lambda known, seed: Predictor((proxy,), lambda sample: rank_last(sample.score_AP[proxy]))


def _usable(score_RP: pd.DataFrame) -> list[str]:
    """Proxies that tell at least two architectures of the reference sample apart."""
    return [p for p in score_RP.columns if np.ptp(rank_last(score_RP[p])) > 0]


def _log_rank(proxies: Sequence[str] | None) -> Callable[[Calibration, int], Predictor]:
    """Sum of the logs of the rank fractions of some proxies (AZ-NAS), of all that vary if None."""

    def fit(known: Calibration, seed: int) -> Predictor:
        score_RP = known.usual.score_AP
        # a proxy that fails on an architecture puts it last, and does not hide what the others say of it
        last = np.log(0.5 / (len(score_RP) + 1))
        names = tuple(proxies or _usable(score_RP))
        ranks = ReferenceRanks.from_scores(score_RP[list(names)])
        return Predictor(names, lambda sample: ranks.fitness(sample.score_AP, failed=last))

    return fit


class Fractions:
    """Share of the reference values below each value, ties half: ranks that do not depend on the other candidates."""

    def __init__(self, reference: Sequence[float]):
        finite = np.where(np.isfinite(x := np.asarray(reference, dtype=np.float64)), x, -np.inf)
        self.sorted = np.sort(finite)

    def __call__(self, values: Sequence[float]) -> np.ndarray:
        x = np.asarray(values, dtype=np.float64)
        x = np.where(np.isfinite(x), x, -np.inf)
        below = np.searchsorted(self.sorted, x, side="left") + np.searchsorted(self.sorted, x, side="right")
        return below / (2 * len(self.sorted))

    def normal(self, values: Sequence[float]) -> np.ndarray:
        """Normal scores of the fractions; beyond the reference as its ends."""
        edge = 0.5 / len(self.sorted)
        return scipy.special.ndtri(np.clip(self(values), edge, 1 - edge))


def _te_nas(known: Calibration, seed: int) -> Predictor:
    """Sum of the ranks of the two, -(condition number) and the number of linear regions (TE-NAS)."""
    ranks = {p: Fractions(known.usual.score_AP[p]) for p in TE_NAS}
    return Predictor(TE_NAS, lambda sample: sum(rank(sample.score_AP[p]) for p, rank in ranks.items()))


#: Proxies of the published combinations; ntk_cond is stored as higher = better.
AZ_NAS = ("az_expressivity", "az_progressivity", "az_trainability", "flops")
TE_NAS = ("ntk_cond", "linear_regions")

#: Proxies that rank where nothing is labelled, and what takes their place in tables without them. Fixed, not learned:
#: weights learned on four spaces were worse on the fifth (0.37 to 0.53 mean Spearman on 13 published tables; the second
#: pair has 0.62). The first four were chosen on three tables (NAS-Bench-201 with CIFAR-100, TransNAS-Bench-101 micro
#: with object classification and jigsaw).
CONSENSUS = ("flops", "lswag_sample", "az_expressivity", "az_trainability")
CONSENSUS_WITHOUT = ("flops", "nwot")


def _consensus(known: Calibration, seed: int) -> Predictor:
    """Log rank of the proxies in :data:`CONSENSUS`, if all are there and vary; else of those in
    :data:`CONSENSUS_WITHOUT` that do; #params if none does."""
    usual = known.usual
    usable = _usable(usual.score_AP)
    whole = set(CONSENSUS) <= set(usable)
    if there := [p for p in usable if p in (CONSENSUS if whole else CONSENSUS_WITHOUT)]:
        return _log_rank(there)(known, seed)
    size = Fractions(usual.params_A)
    return Predictor((), lambda sample: size.normal(sample.params_A))


# -- choosing with labels ----------------------------------------------------------------------------------


def _z1(known: Calibration, seed: int) -> Predictor:
    rho = {name: spearman(known.labelled.score_AP[name], known.accuracy_C) for name in known.labelled.score_AP.columns}
    # a constant proxy has no rho and can only be best if there is nothing else
    best = max(sorted(rho), key=lambda name: -np.inf if np.isnan(rho[name]) else rho[name])
    return Predictor((best,), lambda sample: rank_last(sample.score_AP[best]))


def _libra(mode: str) -> Callable[[Calibration, int], Predictor]:
    def fit(known: Calibration, seed: int) -> Predictor:
        choice = choose(known.labelled.score_AP, known.accuracy_C, known.labelled.params_A, mode, seed=seed)
        return _log_rank(choice.proxies)(known, seed)

    return fit


# -- learning with labels ----------------------------------------------------------------------------------


class Encoder:
    """Columns for learners: normal scores of proxies and #params, standardised features; constant ones left out."""

    def __init__(self, reference: Sample, scores: bool = True, features: bool = True):
        score_RP = self._scores(reference)
        names = _usable(score_RP) if scores else [c for c in ("params",) if np.ptp(score_RP[c]) > 0]
        self.fractions = {name: Fractions(score_RP[name]) for name in names}
        self.feature, self.mean, self.scale = [], np.zeros(0), np.ones(0)
        if features and reference.feature_AF is not None:
            x = reference.feature_AF.loc[:, reference.feature_AF.nunique() > 1].astype(np.float64)
            marks = x.isin((0, 1)).all()
            x = x[[*x.columns[marks], *x.columns[~marks]]]
            self.feature, self.mean, self.scale = list(x.columns), x.mean().to_numpy(), x.std(ddof=0).to_numpy()
            self.marks = int(marks.sum())
        if not self.fractions and not self.feature:
            raise LibranasError(
                "all proxies, sizes and features of the reference sample are constant", "sample more architectures"
            )

    @property
    def proxies(self) -> tuple[str, ...]:
        """The proxies among the columns; #params is given with every sample."""
        return tuple(name for name in self.fractions if name != "params")

    @staticmethod
    def _scores(sample: Sample) -> pd.DataFrame:
        return sample.score_AP.assign(params=sample.params_A.to_numpy(dtype=np.float64))

    def __call__(self, sample: Sample) -> list[np.ndarray]:
        """One (A, D) array a kind of column that there is: scores, features that are 0 or 1, other features.

        Marks of single choices are many and say little each, counts and lengths are few and say much: a Gaussian
        process does better with scales of their own (0.875 against 0.865 on 13 published tables with 100 labels).
        """
        # Columns by name as arrays: selecting them from tables would take most of the time of a search's combining.
        score_A = {**_arrays(sample.score_AP), "params": sample.params_A.to_numpy(dtype=np.float64)}
        feature_A = {} if sample.feature_AF is None else _arrays(sample.feature_AF)
        missing = [p for p in self.fractions if p not in score_A] + [f for f in self.feature if f not in feature_A]
        if missing:
            raise LibranasError(
                f"the combiner was fitted with {', '.join(missing)}, which the candidates do not have",
                "give candidates the same proxies and features as the reference sample",
            )
        groups = []
        if self.fractions:
            groups.append(np.column_stack([f.normal(score_A[name]) for name, f in self.fractions.items()]))
        if self.feature:
            numbers = (np.array([feature_A[name] for name in self.feature]).T - self.mean) / self.scale
            groups += [g for g in np.split(numbers, [self.marks], axis=1) if g.shape[1]]
        return groups


def _arrays(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Columns of a table by name."""
    return dict(zip(table.columns, table.to_numpy(dtype=np.float64).T, strict=True))


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
BLENDED = (_forest, _lightgbm, _gp, _gp_weighted)
#: The blend gives the consensus without labels the weight of this many labels.
CONSENSUS_LABELS = 3
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


def _blend(scores: bool, features: bool) -> Callable[[Calibration, int], Predictor]:
    """Mean of the members, each standardised on the reference sample, and of the consensus without labels, whose
    weight against theirs is that of :data:`CONSENSUS_LABELS` labels against those there are."""

    def fit(known: Calibration, seed: int) -> Predictor:
        encode = Encoder(known.usual, scores, features)
        columns, target_C = encode(known.labelled), _target(known.accuracy_C)
        usual = encode(known.usual)
        members: list[tuple[float, float, Fitted]] = []  # mean and weight / deviation on the reference, predictor

        def scaled(on_reference: np.ndarray, weight: float) -> tuple[float, float]:
            deviation = float(on_reference.std())
            return float(on_reference.mean()), weight / deviation if deviation > 0 else 0.0

        for member in BLENDED:
            fitted = member(columns, target_C, seed)
            members.append((*scaled(fitted(usual), 1 / len(BLENDED)), fitted))
        consensus = _consensus(known, seed) if scores else None
        if consensus:
            mean, weight = scaled(consensus(known.usual), CONSENSUS_LABELS / len(target_C))
        proxies = tuple(dict.fromkeys((*encode.proxies, *(consensus.proxies if consensus else ()))))

        def values(sample: Sample) -> np.ndarray:
            encoded = encode(sample)
            total = sum((w * (predict(encoded) - m) for m, w, predict in members), np.zeros(len(sample)))
            return total + weight * (consensus(sample) - mean) if consensus else total

        return Predictor(proxies, values)

    return fit


#: Every combiner by name, those without labels first.
COMBINERS = {
    c.name: c
    for c in (
        Combiner("params", False, _params),
        Combiner("flops", False, _single("flops"), ("flops",)),
        Combiner("log_rank_all", False, _log_rank(None)),
        Combiner("az_nas", False, _log_rank(AZ_NAS), AZ_NAS),
        Combiner("te_nas", False, _te_nas, TE_NAS),
        Combiner("tcet", False, _single("tcet"), ("tcet",)),
        Combiner("consensus", False, _consensus),
        Combiner("z1", True, _z1),
        Combiner("libra_literal", True, _libra("literal")),
        Combiner("libra_corrected", True, _libra("corrected")),
        Combiner("ridge_ranks", True, _learned(_ridge)),
        Combiner("lightgbm", True, _learned(_lightgbm)),
        Combiner("lambdarank", True, _learned(_lambdarank)),
        Combiner("forest", True, _learned(_forest)),
        Combiner("extra_trees", True, _learned(_extra_trees)),
        Combiner("gp", True, _learned(_gp)),
        Combiner("gp_weighted", True, _learned(_gp_weighted)),
        Combiner("stack", True, _learned(_stack)),
        Combiner("blend", True, _blend(True, True)),
        Combiner("blend_proxies", True, _blend(True, False)),
        Combiner("blend_features", True, _blend(False, True), ("features",)),
    )
}
