"""Export the winner (the seed with the best validation accuracy) as a timm local-dir with a model card."""

from pathlib import Path

from _stage import space_of, stage

with stage(snakemake) as log:
    from safetensors.torch import load_file

    from libranas.core.arch import Arch
    from libranas.core.files import read_json
    from libranas.export.model_card import model_card
    from libranas.export.timm import export_timm
    from libranas.networks import build
    from libranas.report.comparison import scores_of
    from libranas.spaces.file_formats import yaml_text
    from libranas.training.recipe import make_recipe
    from libranas.training.results import percent

    p, manifest, entry = snakemake.params, read_json(snakemake.input.manifest), read_json(snakemake.input.selected)
    summary, entry = read_json(snakemake.input.summary), entry["winner"]
    winner, recipe = summary["roles"]["winner"], make_recipe(p.recipe)
    best, test = winner["best_seed"], winner["test_accuracy"]
    space, arch = space_of(snakemake, manifest), Arch.from_json(entry["architecture"])
    model = build(space, arch, seed=0, timm=True)
    model.load_state_dict(load_file(snakemake.input.weights[best]))
    card = model_card(
        f"{p.run}: winner",
        {"architecture": arch.json, "parameters": entry["params"], "multiply-accumulates of an image": entry["macs"]},
        {
            f"test accuracy, mean of {winner['seeds']} trainings": percent(test),
            f"of this training (seed {best}, the best on validation images)": f"{100 * test['values'][best]:.2f} %",
            "test images": winner["test_images"],
            "comparison": summary["verdict"],
        },
        {
            "data set": manifest["source"] or manifest["adapter"],
            "images": {split: found["count"] for split, found in manifest["splits"].items()},
            "size": [manifest["channels"], manifest["image_size"], manifest["image_size"]],
            "classes": manifest["classes"],
            "SHA-256": manifest["content_sha256"],
        },
        {**recipe.to_dict(), "seed": p.seed},
        summary["facts"],
        scores_of(snakemake.input.histories, entry["id"]),
        p.licence,
    )
    extra = {f"{space.family}.yaml": yaml_text(space, arch)} if space.family in ("autoformer", "pit") else {}
    of_data = (manifest[key] for key in ("image_size", "classes", "mean", "std"))
    export_timm(model, Path(snakemake.output.folder), *of_data, card, extra, recipe.crop_pct, recipe.test_interpolation)
    log.info("exported seed %d; it loads back bit-equal", best)
