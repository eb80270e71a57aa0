"""Train a supernet and take its inherited-weight accuracies."""

from importlib.metadata import version
from pathlib import Path

import pandas as pd
from _stage import archs_of, images_of, space_of, stage, use_threads

with stage(snakemake) as log:
    from libranas.core.files import read_json, write_text
    from libranas.core.progress import progress
    from libranas.core.provenance import digest
    from libranas.labels.supernet import inherit, train_supernet
    from libranas.networks.device import pick_device
    from libranas.training.recipe import ShortRecipe

    use_threads(snakemake.threads)
    p, manifest = snakemake.params, read_json(snakemake.input.manifest)
    space, recipe, device = space_of(snakemake, manifest), ShortRecipe(**p.recipe), pick_device(p.device)
    train, val = images_of(snakemake.input.images, manifest, "train", "val")
    libraries = version("torch"), version("timm")
    key = digest(p.version, *libraries, manifest["content_sha256"], space, recipe, p.seed, device)
    say = lambda r: log.info("supernet: epoch %d of %d, loss %.3f", r["epoch"] + 1, recipe.epochs, r["loss"])  # noqa: E731
    supernet, history = train_supernet(space, train, recipe, p.seed, Path(p.checkpoint), key, device, say)
    table = inherit(supernet, archs_of(snakemake.input.archs, count=p.labelled), val, progress)
    write_text(snakemake.output.history, pd.DataFrame(history).to_csv(index=False))
    write_text(snakemake.output.accuracy, table.to_csv(index=False))
