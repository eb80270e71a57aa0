"""Judge the combiners on one published table."""

from _stage import stage

with stage(snakemake) as log:
    from libranas.files import write_text
    from libranas.published import judge_tables, read_scores

    p, name = snakemake.params.published, snakemake.wildcards.table
    judged = judge_tables(
        p["tables"],
        read_scores(p["scores"], [name]),
        p["labels"],
        p["splits"],
        snakemake.params.seed,
        p["methods"],
        tables=[name],
    )
    write_text(snakemake.output.judged, judged.to_csv(index=False))
