"""Train one shard of the benchmark's architectures from scratch, for a short time."""

from importlib.metadata import version
from pathlib import Path

from _stage import archs_of, images_of, space_of, stage, use_threads

with stage(snakemake) as log:
    from libranas.core.files import read_json, write_text
    from libranas.core.progress import progress
    from libranas.core.provenance import digest
    from libranas.core.shards import shard_of
    from libranas.labels.short_training import train_each
    from libranas.networks.device import pick_device
    from libranas.training.recipe import ShortRecipe

    use_threads(snakemake.threads)
    p, manifest = snakemake.params, read_json(snakemake.input.manifest)
    space, recipe, device = space_of(snakemake, manifest), ShortRecipe(**p.recipe), pick_device(p.device)
    labelled, shard = archs_of(snakemake.input.archs, count=p.labelled), int(snakemake.wildcards.shard)
    often = {arch.id for arch in labelled[: p.repeated["count"]]}
    archs = [arch for arch in labelled if shard_of(arch.id, p.shards) == shard]
    table = train_each(
        space,
        archs,
        *images_of(snakemake.input.images, manifest, "train", "val"),
        recipe,
        [max(p.seeds, p.repeated["seeds"] if arch.id in often else 0) for arch in archs],
        p.seed,
        Path(p.progress),
        digest(p.version, version("torch"), version("timm"), manifest["content_sha256"], space, recipe, p.seed, device),
        device,
        progress,
    )
    write_text(snakemake.output.accuracy, table.to_csv(index=False))
