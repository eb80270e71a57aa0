"""How well from-scratch training and the supernet agree about the same architectures."""

import pandas as pd
from _stage import stage

with stage(snakemake) as log:
    from libranas.core.files import write_json
    from libranas.core.provenance import facts
    from libranas.labels.agreement import agreement
    from libranas.labels.table import read_accuracies

    train, supernet = (read_accuracies(snakemake.input[k]) for k in ("train", "supernet"))
    params = pd.read_csv(snakemake.input.archs, index_col="id")["params"]
    result = agreement(train, supernet, params, snakemake.params.seed)
    write_json(snakemake.output.agreement, {**result, "facts": facts()})
    log.info("Spearman %.2f on %d architectures", result["spearman"], result["n"])
