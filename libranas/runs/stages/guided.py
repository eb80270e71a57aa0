"""Guided search in rounds: score new candidates, propose some of them, train these; and the history of all rounds."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.core.files import write_json, write_text
from libranas.core.progress import progress
from libranas.core.random import stream_seed
from libranas.core.stats import spearman, spearman_interval
from libranas.predictors.base import Predictor
from libranas.runs.folder import RunFolder
from libranas.search.base import Evaluated
from libranas.search.history import history_table
from libranas.search.rounds import Candidates

log = logging.getLogger("libranas")


@dataclass(frozen=True)
class Given:
    """Takes the place of a searcher: the candidates to be scored are known."""

    archs: Sequence[Arch]
    name: str = "candidates"

    def ask(self, history: Sequence[Evaluated]) -> Iterator[Arch]:
        return iter(self.archs[len(history) :])


def _candidates(run: RunFolder, shards: Sequence[int], scored: int) -> Candidates:
    """Return the candidates after the rounds that `shards` lists, with those that were scored before round `scored`.

    Parameters
    ----------
    shards : jobs that trained, for each round
    """
    by_id = {arch.id: arch for arch in run.archs()}
    archs = [by_id[id] for id in run.sample.score_AP.index]
    candidates = Candidates(run.space, run.budget, run.config["seed"], archs, run.sample)
    for number in range(1, scored):
        table = pd.read_csv(run.path("candidates", round=number), dtype={"id": str})
        candidates.add(list(map(Arch.from_json, table.pop("architecture"))), table.to_dict("records"))
    labels = [
        pd.read_csv(run.path("round_labels", round=number, shard=shard), dtype={"id": str})
        for number, count in enumerate(shards)
        for shard in range(count)
    ]
    if labels:
        candidates.know(pd.concat(labels).groupby("id", sort=False)["accuracy"].mean())
    return candidates


def propose(run: RunFolder, number: int, count: int, shards: Sequence[int], workers: int = 1) -> None:
    """Score new candidates, and choose up to `count` candidates to train.

    Parameters
    ----------
    number : of the round; round 0 chooses among the sample, without accuracies
    shards : jobs that trained, for each round before
    workers : processes that score; their number changes no result
    """
    candidates, settings = _candidates(run, shards, number), run.config["search"]
    new = candidates.children(number, settings["population"], settings["parents"]) if number else []
    scores = score_each(run, new, tuple(candidates.score_AP), "search/guided.jsonl", workers)
    candidates.add(new, scores)
    _write(run.path("candidates", round=number), new, pd.DataFrame(scores, columns=candidates.score_AP.columns))
    chosen = candidates.propose(number, count, settings["objectives"] if settings["winner"] == "balanced" else ())
    if len(chosen) < count:
        log.warning("Round %d trains %d networks, not %d: there are no others.", number, len(chosen), count)
    _write(run.path("proposals", round=number), [candidates.archs[i] for i in chosen])


def _write(path: Path, archs: Sequence[Arch], scores: pd.DataFrame | None = None) -> None:
    """Write networks as a table of ids, perhaps scores, and architectures."""
    table = pd.DataFrame() if scores is None else scores
    table.insert(0, "id", [arch.id for arch in archs])
    table["architecture"] = [arch.json for arch in archs]
    write_text(path, table.to_csv(index=False))


def _read(path: Path) -> list[Arch]:
    return list(map(Arch.from_json, pd.read_csv(path)["architecture"]))


def score_each(
    run: RunFolder, archs: Sequence[Arch], proxies: tuple[str, ...], log_name: str, workers: int = 1
) -> list[dict[str, float]]:
    """Score networks as the search sees them; what was scored before a kill is read from a log below ``state``."""
    from libranas.search.run import run as run_search
    from libranas.search.workers import shared_out

    if not archs:
        return []
    fitness = run.fitness(Predictor(proxies, lambda sample: np.zeros(len(sample))))
    with shared_out(fitness, workers) as each:
        path, key = run.state(log_name), fitness.scores_key
        history = run_search(Given(archs), fitness, len(archs), path, key, progress, each)
    return [evaluated.detail for evaluated in history]


def train(run: RunFolder, number: int, shard: int, shards: int) -> None:
    """Train one of `shards` parts of the networks that round `number` proposes."""
    from libranas.runs.stages.labels import train_labels

    archs = _read(run.path("proposals", round=number))[shard::shards]
    table = train_labels(run, archs, [run.config["benchmark"]["seeds"]] * len(archs), f"search/labels-{shard}.jsonl")
    write_text(run.path("round_labels", round=number, shard=shard), table.to_csv(index=False))


def choose_finalists(run: RunFolder, shards: Sequence[int], count: int) -> None:
    """Choose the networks for the long training, which is that of the winner.

    Raises
    ------
    LibranasError
        If no short training gave an accuracy.
    """
    candidates = _candidates(run, shards, len(shards))
    _check(candidates)
    _write(run.path("finalists"), [candidates.archs[i] for i in candidates.finalists(count)])


def train_long(run: RunFolder, shard: int, shards: int) -> None:
    """Train a part of the finalists as the winner will be; validation images measure them, test images are not seen."""
    from libranas.runs.stages.training import trained

    sets, rows = run.splits("train", "val", "val"), []
    for arch in _read(run.path("finalists"))[shard::shards]:
        _, metrics = trained(run, arch, 0, f"search/long-{arch.id}", sets)
        log.info("%s: validation accuracy %.4f", arch.id, metrics["val_accuracy"])
        rows.append((arch.id, metrics["val_accuracy"]))
    write_text(run.path("long", shard=shard), pd.DataFrame(rows, columns=["id", "accuracy"]).to_csv(index=False))


def conclude(run: RunFolder, shards: Sequence[int], long_shards: int) -> None:
    """Write the history of the search: each trained network, its accuracies, and the one that is expected of it."""
    candidates = _candidates(run, shards, len(shards))
    _check(candidates)
    known, accuracy_K = candidates.known()
    long = [pd.read_csv(run.path("long", shard=k), dtype={"id": str}) for k in range(long_shards)]
    long_L = pd.concat(long).set_index("id")["accuracy"].to_dict() if long else {}
    expected_N = candidates.expected(long_L)
    history = [Evaluated(candidates.archs[i], expected_N[i], candidates.score_AP.iloc[i].to_dict()) for i in known]
    table = history_table(history, run.space, budget=run.budget, objectives=run.config["search"]["objectives"])
    rounds = [len(pd.read_csv(run.path("proposals", round=number))) for number in range(len(shards))]
    table.insert(4, "accuracy", accuracy_K)
    table.insert(5, "long_accuracy", table["id"].map(long_L))
    table.insert(6, "round", np.repeat(np.arange(len(shards)), rounds))
    write_text(run.path("history", strategy="guided"), table.to_csv(index=False))
    write_json(run.path("labels_agreement"), _agreement(table, run.config["seed"]))
    best = table.iloc[int(np.argmax(table["fitness"]))]
    log.info("guided: %d trainings; %s is expected to have accuracy %.3f", len(table), best["id"], best["fitness"])


def _agreement(table: pd.DataFrame, seed: int) -> dict | None:
    """Measure how well short and long trainings rank the same networks; None with fewer than three."""
    both = table.dropna(subset=["accuracy", "long_accuracy"])
    if len(both) < 3:
        return None
    short, long = both["accuracy"].to_numpy(), both["long_accuracy"].to_numpy()
    low, high = spearman_interval(short, long, seed=stream_seed(seed, "guided", "agreement"))
    return {"n": len(both), "spearman": spearman(short, long), "low": low, "high": high}


def _check(candidates: Candidates) -> None:
    if not candidates.accuracy_K.notna().any():
        raise LibranasError(
            f"None of the {len(candidates.accuracy_K)} trainings of the search gave an accuracy.",
            "Lower the learning rate of benchmark.recipe.",
        )
