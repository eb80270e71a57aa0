"""Export the winner (the seed with the best validation accuracy) as a timm local-dir."""

from pathlib import Path

from _stage import space_of, stage

with stage(snakemake) as log:
    from safetensors.torch import load_file

    from libranas.arch import Arch
    from libranas.export import export_timm, model_card
    from libranas.files import read_json
    from libranas.nets import build
    from libranas.network_files import yaml_text

    manifest = read_json(snakemake.input.manifest)
    summary, entry = read_json(snakemake.input.summary), read_json(snakemake.input.selected)["winner"]
    best = summary["roles"]["winner"]["best_seed"]
    space, arch = space_of(snakemake, manifest), Arch.from_json(entry["architecture"])
    model = build(space, arch, seed=0)
    model.load_state_dict(load_file(snakemake.input.weights[best]))
    card = model_card(f"{snakemake.params.run}: winner", entry, {**summary["roles"]["winner"], **summary["facts"]})
    folder = Path(snakemake.output.folder)
    # For the training code of AutoFormer and TF-TAS.
    extra = {f"{space.family}.yaml": yaml_text(space, arch)} if space.family in ("autoformer", "pit") else {}
    of_data = (manifest[key] for key in ("image_size", "classes", "mean", "std"))
    export_timm(model, folder, *of_data, card, extra)
    log.info("exported seed %d; it loads back bit-equal", best)
