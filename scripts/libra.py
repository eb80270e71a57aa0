"""Choose the proxies to combine on the calibration architectures; judge every method on the others."""

import pandas as pd
from _stage import stage

with stage(snakemake) as log:
    from libranas.ensemble import choose_and_judge
    from libranas.files import write_json, write_text

    table = pd.read_csv(snakemake.input.table, index_col="id")
    accuracy = pd.read_csv(snakemake.input.accuracy).groupby("id")["accuracy"].mean()
    verdict = choose_and_judge(
        table[snakemake.params.proxies], accuracy, table["params"], snakemake.params.libra, snakemake.params.seed
    )
    write_json(snakemake.output.choice, verdict.choice)
    write_text(snakemake.output.methods, verdict.methods.to_csv(index=False))
    write_text(snakemake.output.proxies, verdict.proxies.to_csv(index=False))
    for reason in verdict.choice["reasons"]:
        log.info(reason)
