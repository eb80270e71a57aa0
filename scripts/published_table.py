"""Judge the combiners, the parts of L-SWAG and the steps of LIBRA on one published table."""

from _stage import stage

with stage(snakemake) as log:
    import pandas as pd

    from libranas.core.files import write_text
    from libranas.published.ablations import ablate_libra, table3
    from libranas.published.tables import COLUMNS, judge_tables, read_scores, read_table

    p, seed, name = snakemake.params.published, snakemake.params.seed, snakemake.wildcards.table
    scores = read_scores(p["scores"], [name])
    judged = judge_tables(p["tables"], scores, p["labels"], p["splits"], seed, p["methods"], tables=[name])
    write_text(snakemake.output.judged, judged.to_csv(index=False))

    table = read_table(snakemake.input.table, None, scores.get(name))
    column = {t: c for c, t in COLUMNS.items()}[name.lower()]
    parts = table3(table.score_AP, table.accuracy_A, table.params_A, column, seed)
    write_text(snakemake.output.table3, parts.assign(column=column).to_csv(index=False))

    modes = ("literal", "corrected")
    steps = [ablate_libra(p["tables"], scores, 100, p["splits"], seed, mode, tables=[name]) for mode in modes]
    write_text(snakemake.output.table4, pd.concat(steps).to_csv(index=False))
