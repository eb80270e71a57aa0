"""Train one of the selected networks with one seed; test accuracy is measured once, at the end."""

from pathlib import Path

from _stage import images_of, space_of, stage, use_threads

with stage(snakemake) as log:
    from libranas.arch import Arch
    from libranas.files import read_json, write_json
    from libranas.provenance import digest
    from libranas.recipe import Recipe
    from libranas.train import pick_device, save_weights, train_and_test

    use_threads(snakemake.threads)
    p, manifest, role = snakemake.params, read_json(snakemake.input.manifest), snakemake.wildcards.role
    space, recipe, device = space_of(snakemake, manifest), Recipe(**p.recipe), pick_device(p.device)
    arch = Arch.from_json(read_json(snakemake.input.selected)[role]["architecture"])
    # Networks that play the same role with the same seed see the same order of images.
    key = digest(
        p.version, manifest["content_sha256"], space, arch.id, recipe, p.seed, snakemake.wildcards.seed, device
    )
    model, metrics = train_and_test(
        space,
        arch,
        images_of(snakemake.input.images, manifest, "train", "val", "test"),
        recipe,
        (p.seed, int(snakemake.wildcards.seed)),
        device,
        Path(p.checkpoint),
        key,
        lambda r: log.info(
            "epoch %d of %d: loss %.3f, validation accuracy %.4f",
            r["epoch"] + 1,
            recipe.epochs,
            r["loss"],
            r["val_accuracy"],
        ),
    )
    save_weights(Path(snakemake.output.weights), model)
    write_json(snakemake.output.metrics, {"role": role, "seed": int(snakemake.wildcards.seed), **metrics})
    log.info("%s: test accuracy %.4f", role, metrics["test_accuracy"])
