"""Choose the proxies to combine on the calibration architectures; judge every method on the others."""

import pandas as pd
from _stage import archs_of, space_of, stage

with stage(snakemake) as log:
    from libranas.ensemble import choose_and_judge
    from libranas.files import read_json, write_json, write_text

    p, space = snakemake.params, space_of(snakemake, read_json(snakemake.input.manifest))
    table = pd.read_csv(snakemake.input.table, index_col="id")
    features = {arch.id: space.features(arch) for arch in archs_of(snakemake.input.archs)}
    accuracy = pd.read_csv(snakemake.input.accuracy).groupby("id")["accuracy"].mean()
    verdict = choose_and_judge(
        table[p.proxies], accuracy, table["params"], p.libra, p.seed, pd.DataFrame(features.values(), list(features))
    )
    write_json(snakemake.output.choice, verdict.choice)
    write_text(snakemake.output.methods, verdict.methods.to_csv(index=False))
    write_text(snakemake.output.proxies, verdict.proxies.to_csv(index=False))
    for reason in verdict.choice["reasons"]:
        log.info(reason)
