"""Search of the DARTS space by pruning a supernet, after TE-NAS (Chen et al., ICLR 2021).

Other than there, all supernets share the weights of the whole one: two candidates differ only by what was removed. And
no edge begins with ``none``, which adds nothing to the sum of an edge.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch

from libranas.core.arch import Arch
from libranas.core.files import AppendLog
from libranas.core.progress import silent
from libranas.core.random import stream_seed
from libranas.core.scorecard import ScoreCard
from libranas.data.calibration import calibration_indices
from libranas.networks.darts import DARTSSupernet
from libranas.predictors.libra import log_rank
from libranas.spaces.cells.darts import EDGES, KINDS, NODES, DARTSSpace, Mask, full_mask, genotype
from libranas.zero_cost import score as engine
from libranas.zero_cost.scorer import Scorer

#: Family of the records that stand for supernets; their genes are the mask.
FAMILY = "darts_supernet"


@dataclass(frozen=True)
class Supernets:
    """Space of supernets, as far as a :class:`libranas.zero_cost.scorer.Scorer` needs one.

    Attributes
    ----------
    space : of the networks that are searched for; image size, channels and classes are its own
    width, layers : of the supernets, which need not be as large as the networks
    """

    space: DARTSSpace
    width: int
    layers: int

    def build(self, mask: Mask, seed: int) -> DARTSSupernet:
        """The supernet of `mask` with the initial weights that the whole one has with this seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            # normalisations without scale and shift, as in the search of DARTS
            return DARTSSupernet(
                mask,
                self.width,
                self.layers,
                affine=False,
                large_stem=self.space.large_stem,
                in_chans=self.space.channels,
                num_classes=self.space.classes,
            )


@dataclass(frozen=True)
class SupernetScorer(Scorer):
    """Scores supernets (architectures of :data:`FAMILY`) on one batch; ``space`` is a :class:`Supernets`."""

    @classmethod
    def like(cls, scorer: Scorer, width: int, layers: int, images: int) -> "SupernetScorer":
        """As `scorer`, on `images` of its images (class-balanced; all if it has fewer)."""
        targets = scorer.targets.cpu().numpy()
        chosen = calibration_indices(targets, min(images, len(targets)), scorer.seed)
        batch = f"{scorer.batch_sha256}, {len(chosen)} of {len(targets)}"
        supernets = Supernets(scorer.space, width, layers)
        return cls(
            supernets, scorer.inputs[chosen], scorer.targets[chosen], batch, scorer.seed, scorer.options, scorer.device
        )

    @cached_property
    def _whole(self) -> dict[int, Mapping[str, torch.Tensor]]:
        """Seed index to the weights of the whole supernet, as far as they were drawn."""
        return {}

    def card(self, arch: Arch, seed_index: int, names) -> ScoreCard:
        seed = stream_seed(self.seed, "init", FAMILY, seed_index)
        if seed_index not in self._whole:
            self._whole[seed_index] = self.space.build(full_mask(), seed).state_dict()
        supernet = self.space.build(arch.genes, seed)
        supernet.load_state_dict({name: self._whole[seed_index][name] for name in supernet.state_dict()})
        noise = stream_seed(self.seed, "score", seed_index)
        return engine.score(supernet.to(self.device), self.inputs, self.targets, names, noise, **self.options)


def prune(
    score: Callable[[Arch], Mapping[str, float]], log_path: str | Path, key: str, progress: Callable = silent
) -> tuple[Arch, int]:
    """Prune the whole supernet to a member of the DARTS space, going on from the log.

    A round scores the supernet without each operation of every edge that still has several; every such edge loses the
    operation that is missed least, by the sum of the log ranks among the candidates of the round. When each edge has
    one, every node keeps the two edges that are missed most. 780 supernets are scored in all.

    Parameters
    ----------
    score : supernet (an architecture of :data:`FAMILY`) -> proxies, higher = better; a pure function
    key : names everything that the scores depend on; records under another key are not used

    Returns
    -------
    the member, and how many supernets were scored for it
    """
    mask = {kind: tuple(tuple(op for op in edge if op != "none") for edge in full_mask()[kind]) for kind in KINDS}
    rounds = max(len(edge) for edge in mask["normal"]) - 1
    with AppendLog(log_path) as log:
        known = {record["supernet"]: record["scores"] for record in log.records if record["key"] == key}
        used = set()

        def losses(removals: list[tuple], what: str) -> pd.Series:
            """Removal (kind, edge, operation) to how much it is missed, in log ranks."""
            rows = []
            for removal in progress(removals, len(removals), what):
                supernet = Arch(FAMILY, _without(mask, *removal))
                if supernet.json not in known:
                    scores = {name: float(value) for name, value in score(supernet).items()}
                    log.append({"key": key, "supernet": supernet.json, "scores": scores})
                    known[supernet.json] = scores
                used.add(supernet.json)
                rows.append(known[supernet.json])
            return -log_rank(pd.DataFrame(rows, index=pd.MultiIndex.from_tuples(removals)))

        for n in range(rounds):
            several = [(kind, e) for kind in KINDS for e, edge in enumerate(mask[kind]) if len(edge) > 1]
            missed = losses(
                [(kind, e, op) for kind, e in several for op in mask[kind][e]], f"pruning: round {n + 1} of {rounds}"
            )
            for kind, e in several:
                mask = _without(mask, kind, e, missed[kind, e].idxmin())
        choice = [(kind, e, mask[kind][e][0]) for kind in KINDS for e, (_, j) in enumerate(EDGES) if j > NODES[0]]
        missed = losses(choice, "pruning: edges")
        # node 2 has no more than its two edges
        kept = {kind: [missed.get((kind, e, mask[kind][e][0]), 0.0) for e in range(len(EDGES))] for kind in KINDS}
    return genotype(mask, kept), len(used)


def _without(mask: Mask, kind: str, edge: int, operation: str) -> Mask:
    left = tuple(op for op in mask[kind][edge] if op != operation)
    return {**mask, kind: (*mask[kind][:edge], left, *mask[kind][edge + 1 :])}
