"""Scores architectures of a search space on the calibration batch: one, or a shard with progress kept.

The initial weights of an architecture come from the random stream (seed, "init", architecture, seed index),
so its scores do not depend on which others are scored, in which order, or on how often the work was killed.
"""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import pandas as pd
import torch

from libranas import engine, layers, proxies, store
from libranas.arch import Arch
from libranas.combiners import Predictor, Sample
from libranas.errors import LibranasError
from libranas.files import AppendLog, plain, read_log
from libranas.layers import LayerWindow
from libranas.nets import build
from libranas.progress import may_stop, silent
from libranas.provenance import digest, facts, stage_version, stream_seed
from libranas.scorecard import ScoreCard
from libranas.spaces import Space


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
        See :class:`libranas.proxies.Options`.
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


@dataclass(frozen=True)
class Fitness:
    """The fitness of a search: what a fitted combiner says of a candidate (:func:`libranas.ensemble.fitted`).

    Called with an architecture it returns ``(fitness, {proxy: score})``. Only the proxies that the combiner looks at
    are scored; where it looks at none, no network is built.

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
        return digest(self.scorer.keys(proxies.with_parts(self.predictor.proxies)), *self._arguments)

    def recall(self, logs: Iterable[Path]) -> None:
        """Take scores that this fitness would compute from the logs of searches, however these combined them.

        Their records have keys that begin with :attr:`scores_key`.
        """
        for record in chain.from_iterable(map(read_log, logs)):
            if record["key"].startswith(self.scores_key):
                self.known[record["arch"]] = record["detail"]

    def scores(self, arch: Arch) -> dict[str, float]:
        """Proxy to score of what the combiner looks at: the work that can be shared out."""
        if not self.predictor.proxies:
            return {}
        return self.known.get(arch.json) or _scores(self.scorer, arch, *self._arguments)

    @property
    def _arguments(self) -> tuple:
        return self.seeds, self.predictor.proxies, self.window, self.psi

    def of(self, arch: Arch, scores: dict[str, float]) -> float:
        """What the combiner says of an architecture with these scores."""
        space = self.scorer.space
        return float(self.predictor(Sample.one(scores, space.params(arch), space.features(arch)))[0])

    def __call__(self, arch: Arch) -> tuple[float, dict]:
        scores = self.scores(arch)
        return self.of(arch, scores), scores


def _scores(
    scorer: Scorer, arch: Arch, seeds: int, names: Sequence[str], window: LayerWindow, psi: str
) -> dict[str, float]:
    row = scorer.table(arch, range(seeds), names, window, psi)
    return {name: float(row[name]) for name in names}


@contextmanager
def shared_out(fitness: Fitness, workers: int) -> Iterator[Callable]:
    """A ``map`` for :func:`libranas.search.run` that scores architectures in worker processes.

    With ``cuda`` as the scorer's device the workers take the GPUs in turn; on a CPU each has one thread. A score
    depends on its architecture alone, so their number changes nothing. Combining scores stays in this process.
    """
    if workers == 1 or not fitness.predictor.proxies:
        yield map
        return
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    devices, scorer = context.SimpleQueue(), fitness.scorer
    for i in range(workers):
        on = f"cuda:{i % torch.cuda.device_count()}" if scorer.device == "cuda" else scorer.device
        devices.put(on)
    at_rest = replace(scorer, inputs=scorer.inputs.cpu(), targets=scorer.targets.cpu())
    pool = ProcessPoolExecutor(workers, context, _begin, (at_rest, fitness._arguments, devices))

    def each(_: Callable, archs: Sequence[Arch]) -> Iterator[tuple[float, dict]]:
        try:
            scored = pool.map(_work, [arch for arch in archs if arch.json not in fitness.known])
            for arch in archs:
                scores = fitness.known.get(arch.json) or next(scored)
                yield fitness.of(arch, scores), scores
        except BrokenProcessPool as error:
            may_stop("while workers were scoring")  # the same signal ended them
            raise LibranasError(
                f"One of {workers} worker processes was killed while it scored, most likely for want of memory.",
                "What was scored is kept. Lower search.workers or give the rule `search` more memory, and run again.",
            ) from error

    try:
        yield each
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(scorer: Scorer, arguments: tuple, devices) -> None:
    """What a worker does first: its own device, one thread, the batch in place."""
    global _own
    torch.set_num_threads(1)
    device = devices.get()
    scorer = replace(scorer, inputs=scorer.inputs.to(device), targets=scorer.targets.to(device), device=device)
    _own = scorer, arguments


def _work(arch: Arch) -> dict[str, float]:
    scorer, arguments = _own
    return _scores(scorer, arch, *arguments)
