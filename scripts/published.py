"""Join what was judged on each published table; the paper's Tables 1, 3 and 4 beside ours, and quality by labels."""

import pandas as pd
from _stage import stage

with stage(snakemake) as log:
    from libranas.core.files import write_text
    from libranas.published.ablations import table4
    from libranas.published.paper import by_labels, by_table, table1

    found, out = snakemake.input, snakemake.output
    tables = {n: pd.concat(map(pd.read_csv, found[n]), ignore_index=True) for n in ("judged", "table3", "table4")}
    judged = tables["judged"]
    ours = table1(judged)
    write_text(out.judged, judged.to_csv(index=False))
    write_text(out.table1, ours.to_csv(index_label="column", float_format="%.4g"))
    write_text(out.table3, tables["table3"].to_csv(index=False, float_format="%.4g"))
    write_text(out.table4, table4(tables["table4"]).to_csv(index=False, float_format="%.4g"))
    write_text(out.means, by_table(judged).to_csv(index=False, float_format="%.4g"))
    write_text(out.labels, by_labels(judged).to_csv(index=False, float_format="%.4g"))
    log.info("mean Spearman %.3f on %d columns", ours["ours"]["mean"], ours["ours"].iloc[:-1].notna().sum())
