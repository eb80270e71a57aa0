"""Scores architectures of a search space on the calibration batch: one, or a shard with progress kept.

The initial weights of an architecture come from the random stream (seed, "init", architecture, seed index),
so its scores do not depend on which others are scored, in which order, or on how often the work was killed.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch

from libranas import scores as store
from libranas.core.arch import Arch
from libranas.core.files import AppendLog, plain
from libranas.core.progress import silent
from libranas.core.provenance import digest, facts, stage_version
from libranas.core.random import stream_seed
from libranas.core.scorecard import ScoreCard
from libranas.networks import build
from libranas.scores import layer_window as layers
from libranas.scores.layer_window import LayerWindow
from libranas.spaces import Space
from libranas.zero_cost import registry as proxies
from libranas.zero_cost import score as engine


@dataclass(frozen=True)
class Scorer:
    """Scores members of `space` on one calibration batch.

    Parameters
    ----------
    inputs, targets : tensors (B, C, H, W) and (B,)
        The calibration batch, normalised.
    batch_sha256 : str
        Names the batch in the conditions of every score.
    seed : int
        Master seed.
    options : dict
        See :class:`libranas.zero_cost.registry.Options`.
    """

    space: Space
    inputs: torch.Tensor
    targets: torch.Tensor
    batch_sha256: str
    seed: int
    options: dict = field(default_factory=dict)
    device: str = "cpu"

    @cached_property
    def conditions(self) -> dict:
        """What every score depends on besides architecture, initialisation and proxy; JSON-ready.

        The options are all there, with their values: one that is left out and its default given are the same.
        """
        return {
            "stage_version": stage_version("score"),
            "batch_sha256": self.batch_sha256,
            "batch_size": len(self.inputs),
            "space": repr(self.space),
            "seed": self.seed,
            "options": plain(dict(sorted(asdict(proxies.Options(**self.options)).items()))),
            "device": self.device,
        }

    def keys(self, names: Iterable[str]) -> dict[str, str]:
        """Proxy to a name for everything that its value depends on besides the network, versions included."""
        libraries = version("torch"), version("timm")  # the provenance names one version for the whole shard
        keys = {}
        for name in names:
            versions = [proxies.get(p).version for p in (*proxies.get(name).parts, name)]
            keys[name] = digest(self.conditions, libraries, name, *versions)
        return keys

    def card(self, arch: Arch, seed_index: int, names: Iterable[str]) -> ScoreCard:
        """All of `names` for one architecture and one of its initialisations."""
        model = build(self.space, arch, stream_seed(self.seed, "init", arch.id, seed_index)).to(self.device)
        try:
            # Noise and signs are the same for all architectures: common random numbers, less noise in ranks.
            return engine.score(
                model,
                self.inputs,
                self.targets,
                names,
                stream_seed(self.seed, "score", seed_index),
                **self.options,
            )
        except Exception as error:
            error.add_note(f"while scoring architecture {arch.id}, seed {seed_index}: {arch.json}")
            raise

    def gather(
        self, archs: Sequence[Arch], seeds: Sequence[int], cards: dict, names: Sequence[str], facts: dict
    ) -> store.Scores:
        """Score cards as the store's arrays; `facts` go into the provenance beside the conditions."""
        info, options = {}, proxies.Options(**self.options)
        for name in names:
            p = proxies.get(name)
            ran = (card.scores[name].pass_name for card in cards.values() if name in card.scores)
            info[name] = {
                "version": p.version,
                "orientation": p.orientation,
                "pass": next(ran, p.charged(options).name),
                "equation": f"{p.title} ({p.source})",
                "component_axes": p.components,
                "precision": p.charged(options).precision or options.precision,
            }
        return store.collect(
            archs,
            [self.space.params(a) for a in archs],
            [self.space.macs(a) for a in archs],
            seeds,
            cards,
            info,
            {"conditions": self.conditions, **facts},
        )

    def table(self, arch: Arch, seeds: Sequence[int], names: Sequence[str], window: LayerWindow, psi: str):
        """Scores of one architecture as the search sees them: oriented, windowed, mean over the seeds.

        Returns
        -------
        pandas Series, proxy to value
        """
        windowed = bool({"lswag_lambda", "lswag_psi", "lswag"} & set(names))
        # The window needs both parts, also where only one of them was chosen.
        names = proxies.with_parts([*names, "lswag"] if windowed else names)
        cards = {(arch.id, s): self.card(arch, s, names) for s in seeds}
        scores = self.gather([arch], seeds, cards, names, {})  # facts ask git: not for every candidate
        frame: pd.DataFrame = layers.table(scores, window, psi) if windowed else store.frame(scores)
        return frame.iloc[0]


def score_shard(
    scorer: Scorer,
    archs: Sequence[Arch],
    seeds: int,
    names: Sequence[str],
    log_path: Path,
    progress: Callable = silent,
) -> store.Scores:
    """Score a shard, going on from what its progress log holds.

    The log is keyed by everything a value depends on, versions of proxies and libraries included: adding a
    proxy computes that proxy alone, and a record from other conditions is never used.

    Parameters
    ----------
    seeds : int
        Number of initialisations.
    log_path : path
        Outside the outputs that Snakemake declares, since it deletes those before a rerun.
    """
    names = proxies.with_parts(names)
    keys = scorer.keys(names)
    cards: dict[tuple[str, int], ScoreCard] = {}
    with AppendLog(log_path) as log:
        for record in log.records:
            card = ScoreCard.from_record(record["card"])
            valid = {n: s for n, s in card.scores.items() if keys.get(n) == record["keys"].get(n)}
            place = record["arch"], record["seed"]
            if valid:
                kept = ScoreCard(valid, card.axes, card.passes, card.excluded, card.warnings)
                cards[place] = cards[place].merged(kept) if place in cards else kept
        work = [(arch, s) for arch in archs for s in range(seeds)]
        for arch, s in progress(work, len(work), "scoring"):
            known = cards.get((arch.id, s))
            missing = [n for n in names if known is None or n not in known.scores]
            if not missing:
                continue
            card = scorer.card(arch, s, missing)
            log.append(
                {
                    "arch": arch.id,
                    "seed": s,
                    "keys": {n: keys[n] for n in card.scores if n in keys},
                    "card": card.to_record(),
                }
            )
            cards[arch.id, s] = known.merged(card) if known else card
    wanted = {(a.id, s) for a, s in work}
    return scorer.gather(archs, range(seeds), {k: c for k, c in cards.items() if k in wanted}, names, facts())
