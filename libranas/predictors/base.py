"""What a combiner is: fitted once, it gives a predictor of the rank of any architecture.

Shape suffixes: A architectures, C labelled, R reference, P proxies, F features.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from libranas.core.arch import Arch
from libranas.core.stats import rank_last
from libranas.spaces import Space


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


def _usable(score_RP: pd.DataFrame) -> list[str]:
    """Proxies that tell at least two architectures of the reference sample apart."""
    return [p for p in score_RP.columns if np.ptp(rank_last(score_RP[p])) > 0]
