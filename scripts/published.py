"""Join what was judged on each published table; the paper's Table 1 beside ours, and quality by number of labels."""

import pandas as pd
from _stage import stage

with stage(snakemake) as log:
    from libranas.files import write_text
    from libranas.published import by_labels, table1

    judged = pd.concat(map(pd.read_csv, snakemake.input.tables), ignore_index=True)
    write_text(snakemake.output.judged, judged.to_csv(index=False))
    ours = table1(judged, snakemake.params.paper)
    write_text(snakemake.output.table1, ours.to_csv(index_label="column", float_format="%.4g"))
    write_text(snakemake.output.labels, by_labels(judged).to_csv(index=False, float_format="%.4g"))
    log.info("mean Spearman %.3f on %d columns", ours["ours"]["mean"], ours["ours"].iloc[:-1].notna().sum())
