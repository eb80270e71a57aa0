"""Join the shards of the benchmark."""

from _stage import stage

with stage(snakemake) as log:
    from libranas.core.files import write_text
    from libranas.labels.table import read_accuracies

    table = read_accuracies(*snakemake.input.shards)
    write_text(snakemake.output.accuracy, table.to_csv(index=False))
    log.info("%d trainings, accuracy %.3f to %.3f", len(table), table["accuracy"].min(), table["accuracy"].max())
