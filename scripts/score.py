"""Score one shard of the sample with all proxies and several initialisations."""

from pathlib import Path

from _stage import archs_of, space_of, stage, use_threads

with stage(snakemake) as log:
    import torch

    from libranas import scores as store
    from libranas.core.files import read_json
    from libranas.core.progress import progress
    from libranas.data.reading import load_calibration
    from libranas.networks.device import pick_device
    from libranas.scores.shard import score_shard
    from libranas.zero_cost.scorer import Scorer

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
