"""The fitness of a candidate: what a fitted combiner says of its scores."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path

from libranas.core.arch import Arch
from libranas.core.files import read_log
from libranas.core.provenance import digest, stage_version
from libranas.predictors.base import Predictor, Sample
from libranas.zero_cost import registry as proxies
from libranas.zero_cost.lswag import LayerWindow
from libranas.zero_cost.scorer import Scorer


@dataclass(frozen=True)
class Fitness:
    """The fitness of a search: called with an architecture it returns ``(fitness, {proxy: score})``.

    Only the proxies that the combiner looks at are scored; where it looks at none, no network is built.

    Parameters
    ----------
    known : canonical JSON of an architecture to its scores, where they are known already (:meth:`recall`)
    """

    scorer: Scorer
    predictor: Predictor
    seeds: int
    window: LayerWindow
    psi: str
    known: dict[str, dict[str, float]] = field(default_factory=dict, repr=False)

    @cached_property
    def scores_key(self) -> str:
        """Names everything the scores depend on besides the architecture; how they are combined is no part of it."""
        keys = self.scorer.keys(proxies.with_parts(self.predictor.proxies))
        return digest(keys, self.seeds, self.predictor.proxies, self.window, self.psi, stage_version("layers"))

    def recall(self, logs: Iterable[Path]) -> None:
        """Take scores that this fitness would compute from logs of searches: their keys begin with `scores_key`."""
        for record in chain.from_iterable(map(read_log, logs)):
            if record["key"].startswith(self.scores_key):
                self.known[record["arch"]] = record["detail"]

    def scores(self, arch: Arch) -> dict[str, float]:
        """Proxy to score of what the combiner looks at: the work that can be shared out."""
        if not self.predictor.proxies:
            return {}
        return self.known.get(arch.json) or self.scorer.windowed_scores(arch, *self.asked)

    @property
    def asked(self) -> tuple:
        """Return the arguments of :meth:`libranas.zero_cost.scorer.Scorer.windowed_scores` for every candidate."""
        return range(self.seeds), self.predictor.proxies, self.window, self.psi

    def of(self, arch: Arch, scores: dict[str, float]) -> float:
        """Return the value of the combiner for an architecture with these scores."""
        space = self.scorer.space
        return float(self.predictor(Sample.one(scores, space.params(arch), space.features(arch)))[0])

    def __call__(self, arch: Arch) -> tuple[float, dict]:
        scores = self.scores(arch)
        return self.of(arch, scores), scores
