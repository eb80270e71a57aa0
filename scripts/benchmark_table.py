"""Take the accuracies of a table for the architectures of the sample."""

from _stage import ids_of, space_of, stage

with stage(snakemake) as log:
    from libranas.core.files import read_json, write_text
    from libranas.labels.table import read_table

    space = space_of(snakemake, read_json(snakemake.input.manifest))
    table = read_table(snakemake.input.table, space, **snakemake.params.columns)
    sampled = set(ids_of(snakemake.input.archs))
    table = table[table["id"].isin(sampled)]
    write_text(snakemake.output.accuracy, table[["id", "seed", "accuracy"]].to_csv(index=False))
    log.info("%d accuracies for %d sampled architectures", len(table), len(sampled))
