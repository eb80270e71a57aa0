"""Read the label-free layer window off the gradient statistics and apply it to the scores."""

from _stage import stage

with stage(snakemake) as log:
    from libranas import layers, store
    from libranas.files import write_json, write_text

    settings = snakemake.params.layers
    scores = store.read(snakemake.input.scores)
    curve = layers.curve(scores, settings["bins"], settings["exclude"])
    choice = layers.choose_window(curve, settings["rule"], settings["fixed"])
    windowed = layers.apply_window(scores, choice.window, settings["psi"])
    for warning in windowed.warnings:
        log.warning(warning)
    write_text(snakemake.output.curve, curve.to_csv(index=False))
    write_json(snakemake.output.window, {**choice.to_dict(), "warnings": list(windowed.warnings)})
    write_text(snakemake.output.table, store.frame(windowed).to_csv(float_format="%.17g"))
    log.info("layers in depth bins %d to %d of %d", choice.window.lo, choice.window.hi, choice.window.bins)
