"""Train one of the selected networks with one seed; test accuracy is measured once, at the end."""

from pathlib import Path

from _stage import images_of, space_of, stage, use_threads

with stage(snakemake) as log:
    from libranas.core.arch import Arch
    from libranas.core.files import read_json, write_json
    from libranas.core.provenance import digest
    from libranas.training.distributed import World
    from libranas.training.recipe import make_recipe
    from libranas.training.train_and_test import train_and_test
    from libranas.training.weights import save_weights

    use_threads(snakemake.threads)
    p, manifest, role = snakemake.params, read_json(snakemake.input.manifest), snakemake.wildcards.role
    space, recipe, world = space_of(snakemake, manifest), make_recipe(p.recipe), World.from_environment(p.device)
    arch = Arch.from_json(read_json(snakemake.input.selected)[role]["architecture"])
    # Networks that play the same role with the same seed see the same order of images.
    seeds = p.seed, int(snakemake.wildcards.seed)
    model, metrics = train_and_test(
        space,
        arch,
        images_of(snakemake.input.images, manifest, "train", "val", "test"),
        recipe,
        seeds,
        Path(p.folder),
        digest(p.version, manifest["content_sha256"], space, arch.id, seeds, world.device.type),
        lambda r: log.info(
            "epoch %d of %d: loss %.3f, validation accuracy %.4f",
            r["epoch"] + 1,
            recipe.epochs,
            r["loss"],
            r["val_accuracy"],
        ),
        world,
        workers=snakemake.threads - 1 if world.device.type == "cuda" else 0,
    )
    if world.first:
        save_weights(Path(snakemake.output.weights), model)
        write_json(snakemake.output.metrics, {"role": role, "seed": seeds[1], **metrics})
        log.info("%s: test accuracy %.4f", role, metrics["test_accuracy"])
