"""Judge the combiners, the parts of L-SWAG and the steps of LIBRA on one published table."""

from _stage import stage

with stage(snakemake) as log:
    import pandas as pd

    from libranas.core.files import write_text
    from libranas.published.ablations import ablate_libra, table3
    from libranas.published.tables import COLUMNS, judge_table, read_table

    p, seed = snakemake.params.published, snakemake.params.seed
    table = read_table(snakemake.input.table, snakemake.input.scores or None)
    judged = judge_table(table, p["labels"], p["splits"], seed, p["methods"])
    write_text(snakemake.output.judged, judged.to_csv(index=False))

    column = {t: c for c, t in COLUMNS.items()}[table.name.lower()]
    parts = table3(table.sample.score_AP, table.accuracy_A, table.sample.params_A, column, seed)
    write_text(snakemake.output.table3, parts.assign(column=column).to_csv(index=False))

    steps = [ablate_libra(table, 100, p["splits"], seed, mode) for mode in ("literal", "corrected")]
    write_text(snakemake.output.table4, pd.concat(steps).to_csv(index=False))
