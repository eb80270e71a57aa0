"""Merge the shards into one score file, count what is not finite, and tell what each proxy costs."""

from _stage import ids_of, stage

with stage(snakemake) as log:
    from libranas import scores as store
    from libranas.core.files import write_text

    wanted = ids_of(snakemake.input.archs)
    store.merge(snakemake.output.scores, snakemake.input.shards, wanted)
    scores = store.Blocks(snakemake.output.scores, components=())
    failures = store.check_failures(scores, snakemake.params.max_failed)
    costs = store.costs(scores)
    write_text(snakemake.output.failures, failures.to_csv(index=False))
    write_text(snakemake.output.costs, costs.to_csv(index=False))
    log.info("%d architectures x %d proxies", len(wanted), len(costs))
