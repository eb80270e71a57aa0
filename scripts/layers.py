"""Read the label-free layer window off the gradient statistics and apply it to the scores."""

from _stage import ids_of, stage

with stage(snakemake) as log:
    from libranas import scores as store
    from libranas.core.files import write_json, write_text
    from libranas.scores import layer_window as layers

    settings = snakemake.params.layers
    scores = store.Blocks(snakemake.input.scores, layers.COMPONENTS)
    curve = layers.curve(scores, settings["bins"], settings["exclude"])
    choice = layers.choose_window(curve, settings["rule"], settings["fixed"])
    table = layers.table(scores, choice.window, settings["psi"])
    warnings = table.attrs["warnings"]
    for warning in warnings:
        log.warning(warning)
    write_text(snakemake.output.curve, curve.to_csv(index=False))
    write_json(snakemake.output.window, {**choice.to_dict(), "warnings": warnings})
    write_text(
        snakemake.output.table, table.loc[ids_of(snakemake.input.archs)].to_csv(float_format="%.17g")
    )  # as drawn, not as sharded
    log.info("layers in depth bins %d to %d of %d", choice.window.lo, choice.window.hi, choice.window.bins)
