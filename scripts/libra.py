"""Choose the proxies to combine on the calibration architectures; judge every method on the others."""

from _stage import sample_of, space_of, stage

with stage(snakemake) as log:
    from libranas.accuracy_table import mean_accuracies
    from libranas.ensemble import choose_and_judge
    from libranas.files import read_json, write_json, write_text

    space, p = space_of(snakemake, read_json(snakemake.input.manifest)), snakemake.params
    sample, accuracy = sample_of(snakemake, space), mean_accuracies(snakemake.input.accuracy)
    verdict = choose_and_judge(sample.score_AP, accuracy, sample.params_A, p.libra, p.seed, sample.feature_AF)
    write_json(snakemake.output.choice, verdict.choice)
    write_text(snakemake.output.methods, verdict.methods.to_csv(index=False))
    write_text(snakemake.output.proxies, verdict.proxies.to_csv(index=False))
    for reason in verdict.choice["reasons"]:
        log.info(reason)
