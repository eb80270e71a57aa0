"""Score architectures of a search space on the calibration batch; no score depends on the other architectures."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version

import numpy as np
import torch

from libranas.core.arch import Arch
from libranas.core.files import plain
from libranas.core.provenance import digest, stage_version
from libranas.core.random import stream_seed
from libranas.core.scorecard import ScoreCard
from libranas.core.stats import mean_of_seeds
from libranas.networks import build
from libranas.spaces import Space
from libranas.zero_cost import lswag
from libranas.zero_cost import registry as proxies
from libranas.zero_cost import score as engine


@dataclass(frozen=True)
class Readout:
    """The images of the readout: a name for the conditions, and a function that loads them as arrays (inputs, targets)
    when they are needed. Without one the batch serves."""

    name: str = ""
    load: Callable[[], tuple[np.ndarray, np.ndarray]] | None = None


@dataclass(frozen=True)
class Scorer:
    """Scores members of `space` on one calibration batch.

    Parameters
    ----------
    inputs, targets : the calibration batch, normalised: tensors (B, C, H, W) and (B,)
    batch_sha256 : names the batch in the conditions of every score
    seed : master seed
    options : see :class:`libranas.zero_cost.options.Options`
    readout : more images for the proxies that need them
    """

    space: Space
    inputs: torch.Tensor
    targets: torch.Tensor
    batch_sha256: str
    seed: int
    options: dict = field(default_factory=dict)
    device: str = "cpu"
    readout: Readout = Readout()

    @cached_property
    def _more_images(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        return tuple(torch.from_numpy(a).to(self.device) for a in self.readout.load()) if self.readout.load else None

    @cached_property
    def conditions(self) -> dict:
        """Return all conditions of a score but architecture, initialisation and proxy; JSON-ready."""
        return {
            "stage_version": stage_version("score"),
            "batch_sha256": self.batch_sha256,
            "batch_size": len(self.inputs),
            "space": repr(self.space),
            "seed": self.seed,
            "options": plain(dict(sorted(asdict(proxies.Options(**self.options)).items()))),
            "device": self.device,
            "readout": self.readout.name,
        }

    def keys(self, names: Iterable[str]) -> dict[str, str]:
        """Proxy to a name for everything that its value depends on besides the network, versions included."""
        libraries = version("torch"), version("timm")  # the provenance names one version for the whole shard
        of_all = {key: value for key, value in self.conditions.items() if key != "readout"}

        def key(name: str) -> str:
            conditions = self.conditions if proxies.reads_out([name]) else of_all
            return digest(conditions, libraries, name, proxies.versions([name]))

        return {name: key(name) for name in names}

    def card(self, arch: Arch, seed_index: int, names: Iterable[str]) -> ScoreCard:
        """Score one architecture and one of its initialisations with all of `names`."""
        model = build(self.space, arch, stream_seed(self.seed, "init", arch.id, seed_index), device=self.device)
        try:
            # Noise and signs are the same for all architectures: common random numbers, less noise in ranks.
            return engine.score(
                model,
                self.inputs,
                self.targets,
                names,
                stream_seed(self.seed, "score", seed_index),
                self.space.macs(arch),
                self._more_images if proxies.reads_out(names) else None,
                **self.options,
            )
        except Exception as error:
            error.add_note(f"while scoring architecture {arch.id}, seed {seed_index}: {arch.json}")
            raise

    def windowed_scores(
        self, arch: Arch, seeds: Iterable[int], names: Sequence[str], window: lswag.LayerWindow, psi_range: str
    ) -> dict[str, float]:
        """Score one architecture as the search sees it.

        Returns
        -------
        proxy to value, for all of `names`: higher is better, L-SWAG in the layer window, mean over the finite seeds
        """
        # The window needs both parts of L-SWAG, also where only one of them was chosen.
        scored = proxies.with_parts(names if set(names).isdisjoint(lswag.NAMES) else [*names, "lswag"])
        return windowed_mean((self.card(arch, s, scored) for s in seeds), names, window, psi_range, self.options)


def windowed_mean(
    cards: Iterable[ScoreCard], names: Iterable[str], window: lswag.LayerWindow, psi_range: str, options: dict
) -> dict[str, float]:
    """Return proxy to value of one architecture, from its score cards: see :meth:`Scorer.windowed_scores`."""
    settings = proxies.Options(**options)
    seeds = [lswag.card_in_window(card, window, psi_range, settings) for card in cards]
    values = {name: np.array([[of_seed[name] for of_seed in seeds]]) for name in names}
    return {name: float(mean_of_seeds(v, proxies.get(name).orientation)[0][0]) for name, v in values.items()}
