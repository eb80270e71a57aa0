"""Score one shard of the sample with all proxies and several initialisations."""

from pathlib import Path

from _stage import archs_of, space_of, stage, use_threads

with stage(snakemake) as log:
    import torch

    from libranas import store
    from libranas.data import load_calibration
    from libranas.files import read_json
    from libranas.progress import progress
    from libranas.scoring import Scorer, score_shard
    from libranas.train import pick_device

    use_threads(snakemake.threads)
    manifest = read_json(snakemake.input.manifest)
    inputs, targets = (torch.from_numpy(a) for a in load_calibration(snakemake.input.calibration))
    p, device = snakemake.params, pick_device(snakemake.params.device)
    scorer = Scorer(
        space_of(snakemake, manifest),
        inputs.to(device),
        targets.to(device),
        manifest["calibration"]["sha256"],
        p.seed,
        p.options,
        device,
    )
    archs = archs_of(snakemake.input.archs, shard=int(snakemake.wildcards.shard))
    scores = score_shard(scorer, archs, p.seeds, p.proxies, Path(p.progress), progress)
    store.write(snakemake.output.scores, scores)
