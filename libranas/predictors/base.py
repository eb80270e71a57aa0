"""The records of this package: samples of architectures, combiners and the predictors that they give.

Suffixes: A architectures, C labelled, R reference, P proxies, F features.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.core.stats import rank_last
from libranas.spaces import Space


@dataclass(frozen=True)
class Sample:
    """Scores, sizes and features of architectures: tables over the same ids in the same order.

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
        """Take sizes and features from the space; `archs` are in the order of the rows."""
        rows = [(space.params(arch), space.features(arch)) for arch in archs]
        params, features = zip(*rows, strict=True)
        return cls(score_AP, pd.Series(params, score_AP.index), pd.DataFrame(list(features), score_AP.index))

    @classmethod
    def one(cls, scores: Mapping[str, float], params: float, features: Mapping[str, float] | None = None) -> "Sample":
        """Make the sample of a single architecture, for a search."""

        def row(values: Mapping[str, float]) -> pd.DataFrame:  # from an array: from a dict it takes three times as long
            names, numbers = zip(*values.items(), strict=True) if len(values) else ((), ())
            return pd.DataFrame(np.array([numbers], dtype=np.float64), columns=pd.Index(names, dtype=object))

        return cls(row(scores), pd.Series([params]), None if features is None else row(features))

    def __len__(self) -> int:
        return len(self.params_A)

    def take(self, positions: np.ndarray) -> "Sample":
        """Return the architectures at these positions, in this order."""
        features = None if self.feature_AF is None else self.feature_AF.iloc[positions]
        return Sample(self.score_AP.iloc[positions], self.params_A.iloc[positions], features)

    @cached_property
    def varying(self) -> list[str]:
        """Proxies that tell at least two of the architectures apart."""
        return [p for p in self.score_AP.columns if np.ptp(rank_last(self.score_AP[p])) > 0]


@dataclass(frozen=True)
class Calibration:
    """Architectures and accuracies that a combiner may learn from.

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
        """The reference sample, or the labelled one where there is none."""
        return self.labelled if self.reference is None else self.reference


@dataclass(frozen=True)
class Predictor:
    """A fitted combiner: called with a sample it gives a value for each architecture, shape (A,), higher = better.

    A value does not depend on the other architectures of the sample: ranks are those among the reference sample.

    Attributes
    ----------
    proxies : those that it looks at; candidates of a search need no others
    values : the function itself, an object that can be written to a file (:mod:`libranas.predictors.artefact`)
    """

    proxies: tuple[str, ...]
    values: Callable[[Sample], np.ndarray]

    def __call__(self, sample: Sample) -> np.ndarray:
        return self.values(sample)


@dataclass(frozen=True)
class Combiner:
    """A way to rank architectures by proxies, sizes and, where some are known, accuracies.

    Attributes
    ----------
    name : in the configuration and in tables
    title : in reports
    fit : ``fit(known, seed)`` gives a :class:`Predictor`
    needs_labels : whether it uses the accuracies
    columns : proxies that it cannot do without, nor with all values equal; "features" stands for the features of the
        architecture
    shown : whether the figure of quality by labels shows it; all combiners would hide each other
    """

    name: str
    title: str
    fit: Callable[[Calibration, int], Predictor]
    needs_labels: bool = True
    columns: tuple[str, ...] = ()
    shown: bool = False

    def lacks(self, known: Calibration) -> tuple[str, ...]:
        """Name what is missing for a fit; empty if nothing is."""
        there = set(known.usual.varying)
        if known.usual.feature_AF is not None:
            there.add("features")
        missing = tuple(c for c in self.columns if c not in there)
        return missing + (("labels",) if self.needs_labels and not len(known.labelled) else ())


def check_table(
    score_AP: pd.DataFrame, accuracy_A: pd.Series, params_A: pd.Series
) -> tuple[pd.DataFrame, pd.Series, pd.Series]:
    """Return the three with architectures in the order of their ids and proxies in the order of their names.

    LibranasError for repeated or differing ids and for accuracies or sizes that are not finite.
    """
    for what, names in (("architecture", score_AP.index), ("proxy", score_AP.columns)):
        if names.has_duplicates:
            example = names[names.duplicated()][0]
            raise LibranasError(f"scores: {what} {example!r} occurs more than once", "keep one entry of each")
    for what, x in (("accuracies", accuracy_A), ("numbers of parameters", params_A)):
        odd = score_AP.index.symmetric_difference(x.index).union(x.index[x.index.duplicated()])
        if len(odd):
            raise LibranasError(
                f"{len(score_AP)} scored architectures and {len(x)} {what} do not match, e.g. {odd[0]!r}",
                "give scores, accuracies and sizes for exactly the same architectures, one entry each",
            )
        bad = x.index[~np.isfinite(x.to_numpy(dtype=np.float64))]
        if len(bad):
            raise LibranasError(
                f"{len(bad)} of the {what} are not finite, e.g. that of {bad[0]!r}",
                "leave those architectures out, or give a failed training the accuracy that it reached",
            )
    score_AP = score_AP.sort_index(axis=0).sort_index(axis=1)
    return score_AP, accuracy_A.loc[score_AP.index], params_A.loc[score_AP.index]


def check_features(feature_AF: pd.DataFrame | None, ids: pd.Index) -> pd.DataFrame | None:
    """Return the features in the order of `ids`, columns by name. LibranasError if one is not there or not finite."""
    if feature_AF is None:
        return None
    odd = ids.difference(feature_AF.index).union(feature_AF.index[feature_AF.index.duplicated()])
    if len(odd):
        raise LibranasError(
            f"the table of features has no row, or several, for architecture {odd[0]!r}",
            "give the features of each scored architecture once",
        )
    feature_AF = feature_AF.loc[ids].sort_index(axis=1).astype(np.float64)
    if not np.isfinite(feature_AF.to_numpy()).all():
        raise LibranasError("features of architectures are not finite", "leave those features out")
    return feature_AF
