"""Export the winner (the seed with the best validation accuracy) as a timm local-dir."""

from pathlib import Path

from _stage import space_of, stage

with stage(snakemake) as log:
    from safetensors.torch import load_file

    from libranas.arch import Arch
    from libranas.export import export_timm, model_card
    from libranas.files import read_json
    from libranas.nets import build

    manifest = read_json(snakemake.input.manifest)
    summary, entry = read_json(snakemake.input.summary), read_json(snakemake.input.selected)["winner"]
    best = summary["roles"]["winner"]["best_seed"]
    model = build(space_of(snakemake, manifest), Arch.from_json(entry["architecture"]), seed=0)
    model.load_state_dict(load_file(snakemake.input.weights[best]))
    card = model_card(f"{snakemake.params.run}: winner", entry, {**summary["roles"]["winner"], **summary["facts"]})
    folder = Path(snakemake.output.folder)
    export_timm(model, folder, manifest["image_size"], manifest["classes"], manifest["mean"], manifest["std"], card)
    log.info("exported seed %d; it loads back bit-equal", best)
