"""Columns for learners, made from scores, sizes and features."""

import numpy as np
import pandas as pd

from libranas.core.errors import LibranasError
from libranas.predictors.base import Sample
from libranas.predictors.ranks import Fractions


class Encoder:
    """Columns for learners: normal scores of proxies and #params, standardised features; constant ones left out.

    Normal scores are those of the ranks in the reference sample.
    """

    def __init__(self, reference: Sample, scores: bool = True, features: bool = True):
        score_RP = reference.score_AP.assign(params=reference.params_A.to_numpy(dtype=np.float64))
        shown = Sample(score_RP if scores else score_RP[["params"]], reference.params_A)
        self.fractions = {name: Fractions(score_RP[name]) for name in shown.varying}
        self.feature, self.marks, self.mean, self.scale = [], 0, np.zeros(0), np.ones(0)
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

    def __call__(self, sample: Sample) -> list[np.ndarray]:
        """One (A, D) array a kind of column that there is: scores, features that are 0 or 1, other features.

        A Gaussian process does better with scales of their own (0.875 against 0.865 on 13 published tables).
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
