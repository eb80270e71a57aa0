"""Choose the proxies to combine on the calibration architectures; judge every method on the others."""

import pandas as pd
from _stage import archs_of, sample_of, space_of, stage

with stage(snakemake) as log:
    from libranas import scores as store
    from libranas.core.files import read_json, write_json, write_text
    from libranas.labels.table import mean_accuracies
    from libranas.predictors.selection import choose_and_judge
    from libranas.published.ablations import table3
    from libranas.scores import layer_window as layers

    space, p = space_of(snakemake, read_json(snakemake.input.manifest)), snakemake.params
    sample, accuracy = sample_of(snakemake, space), mean_accuracies(snakemake.input.accuracy)
    network_A = pd.Series({a.id: space.representative(a).id for a in archs_of(snakemake.input.archs)})
    judged = (sample.score_AP, accuracy, sample.params_A, p.libra, p.seed)
    verdict = choose_and_judge(*judged, sample.feature_AF, network_A)
    write_json(snakemake.output.choice, verdict.choice)
    write_text(snakemake.output.methods, verdict.methods.to_csv(index=False))
    write_text(snakemake.output.proxies, verdict.proxies.to_csv(index=False))
    window = layers.WindowChoice.from_dict(read_json(snakemake.input.window)).window
    parts = layers.whole_and_windowed(store.Blocks(snakemake.input.scores, layers.COMPONENTS), window, p.psi)
    parts = table3(parts, accuracy, sample.params_A.loc[accuracy.index], p.paper, p.seed)
    write_text(snakemake.output.parts, parts.to_csv(index=False))
    for reason in verdict.choice["reasons"]:
        log.info(reason)
