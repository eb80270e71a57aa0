"""Run one search strategy with the fitness that LIBRA chose, under the budget."""

from pathlib import Path

from _stage import fitness_of, space_of, stage, use_threads

with stage(snakemake) as log:
    import torch

    from libranas import search
    from libranas.data import load_calibration
    from libranas.files import read_json, write_text
    from libranas.progress import progress
    from libranas.provenance import digest
    from libranas.scoring import Scorer
    from libranas.spaces import Budget
    from libranas.train import pick_device

    use_threads(snakemake.threads)
    p, manifest = snakemake.params, read_json(snakemake.input.manifest)
    space, budget, device = space_of(snakemake, manifest), Budget.from_settings(p.budget), pick_device(p.device)
    inputs, targets = (torch.from_numpy(a).to(device) for a in load_calibration(snakemake.input.calibration))
    scorer = Scorer(space, inputs, targets, manifest["calibration"]["sha256"], p.seed, p.options, device)
    fitness, depends = fitness_of(snakemake, scorer, read_json(snakemake.input.choice))
    strategy = snakemake.wildcards.strategy
    searcher, evaluate = search.strategy(strategy, space, budget, p.seed, p.search, fitness)
    key = digest(p.version, scorer.conditions, budget, strategy, p.search, depends)
    history = search.run(searcher, evaluate, p.search["evaluations"], Path(p.progress), key, progress)
    write_text(snakemake.output.history, search.history_table(history, space).to_csv(index=False))
    best = search.fittest(history, 1)[0]
    log.info("%s: best fitness %.3f, %d parameters", strategy, best.fitness, space.params(best.arch))
