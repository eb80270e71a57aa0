"""Prune the supernet of the DARTS space to one network, and give it the fitness of the other searches."""

from pathlib import Path

from _stage import fitness_of, space_of, stage, use_threads

with stage(snakemake) as log:
    import torch

    from libranas.core.files import read_json, write_text
    from libranas.core.progress import progress
    from libranas.core.provenance import digest
    from libranas.data.reading import load_calibration
    from libranas.networks.device import pick_device
    from libranas.search.base import Evaluated
    from libranas.search.history import history_table
    from libranas.search.pruning import SupernetScorer, prune
    from libranas.zero_cost.scorer import Scorer

    use_threads(snakemake.threads)
    p, manifest = snakemake.params, read_json(snakemake.input.manifest)
    space, device, seeds = space_of(snakemake, manifest), pick_device(p.device), p.search["seeds"]
    inputs, targets = (torch.from_numpy(a).to(device) for a in load_calibration(snakemake.input.calibration))
    scorer = Scorer(space, inputs, targets, manifest["calibration"]["sha256"], p.seed, p.options, device)
    choice = read_json(snakemake.input.choice)
    fitness, _ = fitness_of(snakemake, scorer, choice)
    supernets = SupernetScorer.like(scorer, *(p.pruning[k] for k in ("width", "layers", "images")))
    names = ["lswag"] if p.pruning["fitness"] == "lswag" else choice["proxies"]
    winner, scored = prune(
        lambda supernet: supernets.windowed_scores(supernet, range(seeds), names, fitness.window, p.psi),
        Path(p.progress),
        digest(p.version, supernets.conditions, names, seeds, fitness.window, p.psi),
        progress,
    )
    evaluated = Evaluated(winner, *fitness(winner))
    write_text(snakemake.output.history, history_table([evaluated], space, scored + 1).to_csv(index=False))
    log.info("pruning: fitness %.3f, %d parameters", evaluated.fitness, space.params(winner))
