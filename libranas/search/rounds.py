"""Candidates of a guided search over a search space, round by round."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.core.random import stream_seed
from libranas.predictors.base import Sample
from libranas.predictors.encoder import Encoder
from libranas.predictors.label_free import consensus
from libranas.search import guided
from libranas.search.base import Evaluated
from libranas.search.strategies.evolution import Evolution
from libranas.search.strategies.nsga2 import OBJECTIVES
from libranas.spaces import Budget, Space
from libranas.spaces.base import network


class Candidates:
    """Scored networks, and the accuracies of those that were trained.

    Parameters
    ----------
    archs : sequence of Arch
        The sample of the run, in the order of the rows of `sample`.
    sample : Sample
        Its scores, sizes and features. Ranks are those among the sample.
    """

    def __init__(self, space: Space, budget: Budget, seed: int, archs: Sequence[Arch], sample: Sample):
        self.space, self.budget, self.seed = space, budget, seed
        self.archs, self.reference, self.score_AP = list(archs), sample, sample.score_AP
        self.encode = Encoder(sample)
        self.accuracy_K = pd.Series(dtype=float)

    def add(self, archs: Sequence[Arch], scores: Sequence[Mapping[str, float]]) -> None:
        """Add scored networks."""
        self.archs += archs
        more = pd.DataFrame(list(scores), index=[arch.id for arch in archs], columns=self.score_AP.columns)
        self.score_AP = pd.concat([self.score_AP, more.astype(np.float64)])

    def know(self, accuracy_K: pd.Series) -> None:
        """Take the accuracies of trained candidates, by id; NaN: the training failed."""
        self.accuracy_K = accuracy_K

    @property
    def position(self) -> dict[str, int]:
        """Id of a candidate to its position."""
        return {arch.id: i for i, arch in enumerate(self.archs)}

    def sample(self) -> Sample:
        """Return scores, sizes and features of all candidates."""
        return Sample.of(self.score_AP, self.space, self.archs)

    def known(self) -> tuple[list[int], np.ndarray]:
        """Return positions and accuracies of the trained candidates."""
        position = self.position
        return [position[id] for id in self.accuracy_K.index], self.accuracy_K.to_numpy(dtype=np.float64)

    def posterior(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and deviation of the surrogate for every candidate."""
        groups = self.encode(self.sample())
        return guided.surrogate(groups, *self.known()).posterior(groups)

    def expected(self, long_L: Mapping[str, float] | None = None) -> np.ndarray:
        """Return the accuracy that every candidate is expected to have, by all that is known.

        Parameters
        ----------
        long_L : id to accuracy after the long training; where there is one, the accuracy after that one is returned
        """
        position, long = self.position, long_L or {}
        trained = [position[id] for id in long], np.array(list(long.values()), dtype=np.float64)
        return guided.expected(self.encode(self.sample()), *self.known(), *trained)

    def finalists(self, count: int) -> list[int]:
        """Return positions of the networks for the long training: half of them the best, the others spread over all.

        The others show whether the short training ranks as the long one does.
        """
        expected_N = self.expected()
        best_first = sorted(self.known()[0], key=lambda i: -expected_N[i])
        best, rest = best_first[: -(-count // 2)], best_first[-(-count // 2) :]
        spread = np.linspace(0, len(rest) - 1, min(count // 2, len(rest))).round().astype(int)
        return [*best, *(rest[i] for i in dict.fromkeys(spread.tolist()))]

    def children(self, number: int, count: int, parents: int) -> list[Arch]:
        """Return up to `count` new networks for round `number`: half of them random, the others from the best.

        Parameters
        ----------
        parents : trained networks, those with the highest mean of the surrogate, that have children
        """
        mean_N, _ = self.posterior()
        best = sorted(self.known()[0], key=lambda i: -mean_N[i])[:parents]
        parents_ = [Evaluated(self.archs[i], mean_N[i], {}) for i in best]
        rng = np.random.default_rng(stream_seed(self.seed, "guided", "children", number))
        evolution = Evolution(self.space, self.budget, self.seed, population=0, parents=parents, name="guided")
        seen, new = {network(self.space, arch) for arch in self.archs}, []
        for step in range(count):
            child = evolution.child(parents_, step // 2, seen, rng) if step % 2 else None
            try:
                arch = child or evolution.newcomer(seen, rng)
            except LibranasError:
                break  # the budget admits no other network
            seen.add(network(self.space, arch))
            new.append(arch)
        return new

    def propose(self, number: int, count: int, objectives: Sequence[str] = ()) -> list[int]:
        """Return positions of the candidates to train in round `number`.

        Parameters
        ----------
        objectives : what is to be small beside a high accuracy: ``params``, ``macs``, ``latency``
        """
        rng = np.random.default_rng(stream_seed(self.seed, "guided", number))
        sample = self.sample()
        groups = self.encode(sample)
        if len(self.accuracy_K):
            costs = [OBJECTIVES[name](self.space, self.budget) for name in objectives]
            cost_NO = np.log([[cost(arch) for cost in costs] for arch in self.archs]) if costs else None
            return guided.propose(groups, *self.known(), count, rng, cost_NO)
        return guided.first(groups, consensus(self.reference)(sample), count, rng)
