"""The choice of proxies, and the searches with the fitness that it gives."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from libranas import scores as store
from libranas.core.files import read_json, write_json, write_text
from libranas.core.progress import progress
from libranas.core.provenance import file_sha256
from libranas.labels.table import mean_accuracies
from libranas.latency.table import Conditions, record
from libranas.runs.folder import RunFolder
from libranas.scores import layer_window as layers
from libranas.search.base import Evaluated, fittest
from libranas.search.history import history_table
from libranas.search.registry import STRATEGIES

log = logging.getLogger("libranas")

#: Architectures of the sample, the first of the draw, that say what is usual; beside them those with an accuracy.
REFERENCE = 20_000


def libra(run: RunFolder) -> None:
    """Choose the proxies to combine on the calibration architectures; judge every method on the others."""
    from libranas.predictors import artefact
    from libranas.predictors.selection import choose_and_judge
    from libranas.published.ablations import table3

    accuracy, config = run.accuracies, run.config
    archs = run.archs(ids=accuracy.index.union(run.ids[:REFERENCE]))
    sample, network_A = run.sample_of(archs), pd.Series({arch.id: run.space.representative(arch).id for arch in archs})
    verdict = choose_and_judge(
        sample.score_AP, accuracy, sample.params_A, config["libra"], config["seed"], sample.feature_AF, network_A
    )
    write_json(run.path("choice"), verdict.choice)
    artefact.write(run.path("combiner"), verdict.predictor)
    write_text(run.path("methods"), verdict.methods.to_csv(index=False))
    write_text(run.path("proxies"), verdict.proxies.to_csv(index=False))
    parts = layers.whole_and_windowed(
        store.Blocks(run.path("scores"), layers.COMPONENTS), run.window, config["layers"]["psi"]
    )
    params = sample.params_A.loc[accuracy.index]
    parts = table3(parts, accuracy, params, config["benchmark"]["paper"], config["seed"])
    write_text(run.path("parts"), parts.to_csv(index=False))
    for reason in verdict.choice["reasons"]:
        log.info(reason)
    unlabelled = verdict.choice["consensus"]
    log.info("consensus: %s, because %s", ", ".join(unlabelled["proxies"]) or "#params", unlabelled["why"])


def search(run: RunFolder, strategy: str, workers: int = 1) -> None:
    """Run one search strategy with the fitness that LIBRA chose, under the budget, scoring in `workers` processes."""
    from libranas.search.run import run as run_search
    from libranas.search.workers import shared_out

    how, space, budget, settings = STRATEGIES[strategy], run.space, run.budget, run.config["search"]
    fitness = run.fitness()
    searcher, evaluate = how.searcher(space, budget, run.config["seed"], settings), how.evaluation(space, fitness)
    scored, path = evaluate is fitness, run.state(f"search/{strategy}.jsonl")
    key = run.key("search", file_sha256(run.path("combiner")), fitness.window, fitness.psi)
    if scored:
        key = fitness.scores_key + key
        fitness.recall(sorted(path.parent.glob("*.jsonl")))
    with shared_out(fitness, workers if scored else 1) as each:
        history = run_search(searcher, evaluate, settings["evaluations"], path, key, progress, each)
    objectives = settings["objectives"] if how.needs_objectives else ()
    table = history_table(history, space, budget=budget, objectives=objectives)
    write_text(run.path("history", strategy=strategy), table.to_csv(index=False))
    best = fittest(history, 1)[0]
    log.info("%s: best fitness %.3f, %d parameters", strategy, best.fitness, space.params(best.arch))


def prune(run: RunFolder) -> None:
    """Prune the supernet of the DARTS space to one network, and give it the fitness of the other searches."""
    from libranas.search.pruning import SupernetScorer, prune

    settings, seeds = run.config["search"]["pruning"], run.config["search"]["seeds"]
    fitness, space, psi = run.fitness(), run.space, run.config["layers"]["psi"]
    supernets = SupernetScorer.like(fitness.scorer, *(settings[k] for k in ("width", "layers", "images")))
    names = ["lswag"] if settings["fitness"] == "lswag" else read_json(run.path("choice"))["proxies"]
    winner, scored = prune(
        lambda supernet: supernets.windowed_scores(supernet, range(seeds), names, run.window, psi),
        run.state("search/pruning.jsonl"),
        run.key("search", supernets.conditions, names, seeds, run.window, psi),
        progress,
    )
    evaluated = Evaluated(winner, *fitness(winner))
    table = history_table([evaluated], space, scored + 1)
    write_text(run.path("history", strategy="pruning"), table.to_csv(index=False))
    log.info("pruning: fitness %.3f, %d parameters", evaluated.fitness, space.params(winner))


def select(
    run: RunFolder, strategies: Sequence[str], reference: str | Path | None = None, labelled: str | Path | None = None
) -> None:
    """Name the winner of the first strategy and its controls: a random network of equal size, the largest of the
    budget, that of the file `reference`, and the best of the random networks with accuracies in the file `labelled`."""
    from libranas.latency.measure import timer
    from libranas.search.selection import select
    from libranas.spaces.file_formats import one_network, read_file

    space, budget, config = run.space, run.budget, run.config
    histories = {name: pd.read_csv(run.path("history", strategy=name)) for name in strategies}
    measured = None
    if budget.clock:
        settings = {k: v for k, v in config["latency"].items() if k != "held_out"}
        conditions = Conditions(run.device, **settings)
        timed = timer(conditions)

        def measured(arch):
            return record(arch, timed(space, [arch])[0], budget.clock, conditions)

    network = one_network(read_file(reference), space, f"train.reference: {reference}") if reference else None
    winner, objectives = config["search"]["winner"], config["search"]["objectives"]
    random = []
    if labelled:
        accuracy = mean_accuracies(labelled)
        by_id = {arch.id: arch for arch in run.archs(ids=accuracy.index)}
        random = [by_id[id] for id in accuracy.sort_values(ascending=False, kind="stable").index]
    selected = select(histories, space, budget, config["seed"], winner, objectives, measured, network, random)
    write_json(run.path("selected"), selected)
    for role, entry in selected.items():
        log.info("%s: %d parameters, %s", role, entry["params"], entry["architecture"])
    if difference := selected["random"].get("params_difference"):
        log.warning(
            "No network of equal size was found for the random control; the nearest has %+.1f %% parameters.",
            100 * difference,
        )
