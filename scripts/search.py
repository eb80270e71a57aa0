"""Run one search strategy with the fitness that LIBRA chose, under the budget."""

from importlib.metadata import version
from pathlib import Path

from _stage import budget_of, fitness_of, space_of, stage, use_threads

if __name__ == "__main__":  # workers import this file too
    with stage(snakemake) as log:
        import torch

        from libranas.core.files import read_json, write_text
        from libranas.core.progress import progress
        from libranas.core.provenance import digest
        from libranas.data.reading import load_calibration
        from libranas.networks.device import pick_device
        from libranas.search.base import fittest
        from libranas.search.history import history_table
        from libranas.search.registry import STRATEGIES
        from libranas.search.run import run
        from libranas.search.workers import shared_out
        from libranas.zero_cost.scorer import Scorer

        use_threads(1)  # more would change the last digits; search.workers are processes
        p, manifest = snakemake.params, read_json(snakemake.input.manifest)
        space, budget, device = space_of(snakemake, manifest), budget_of(snakemake), pick_device(p.device)
        inputs, targets = (torch.from_numpy(a).to(device) for a in load_calibration(snakemake.input.calibration))
        scorer = Scorer(space, inputs, targets, manifest["calibration"]["sha256"], p.seed, p.options, device)
        fitness, depends = fitness_of(snakemake, scorer, read_json(snakemake.input.choice))
        strategy = STRATEGIES[snakemake.wildcards.strategy]
        searcher, evaluate = strategy.searcher(space, budget, p.seed, p.search), strategy.evaluation(space, fitness)
        libraries = [version(name) for name in ("scikit-learn", "lightgbm")]
        scored, path = evaluate is fitness, Path(p.progress)
        key = digest(p.version, libraries, depends)
        if scored:
            key = fitness.scores_key + key
            fitness.recall(sorted(path.parent.glob("*.jsonl")))
        with shared_out(fitness, snakemake.threads if scored else 1) as each:
            history = run(searcher, evaluate, p.search["evaluations"], path, key, progress, each)
        objectives = p.search["objectives"] if strategy.needs_objectives else ()
        table = history_table(history, space, budget=budget, objectives=objectives)
        write_text(snakemake.output.history, table.to_csv(index=False))
        best = fittest(history, 1)[0]
        log.info("%s: best fitness %.3f, %d parameters", strategy.name, best.fitness, space.params(best.arch))
