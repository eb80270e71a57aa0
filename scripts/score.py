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
    settings, device = snakemake.params.score, pick_device(snakemake.params.device)
    scorer = Scorer(
        space_of(snakemake, manifest),
        inputs.to(device),
        targets.to(device),
        manifest["calibration"]["sha256"],
        snakemake.params.seed,
        settings["options"],
        device,
    )
    archs = archs_of(snakemake.input.archs, shard=int(snakemake.wildcards.shard))
    log_path = Path(snakemake.params.progress)
    scores = score_shard(scorer, archs, settings["seeds"], settings["proxies"], log_path, progress)
    store.write(snakemake.output.scores, scores)
