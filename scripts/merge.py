"""Merge the shards into one score file, count what is not finite, and tell what each proxy costs."""

from _stage import archs_of, stage

with stage(snakemake) as log:
    from libranas import store
    from libranas.files import write_text

    order = [arch.id for arch in archs_of(snakemake.input.archs)]
    parts = [store.read(path) for path in snakemake.input.shards]
    scores = store.merge(parts, order, snakemake.input.shards)
    failures = store.check_failures(scores, snakemake.params.max_failed)
    store.write(snakemake.output.scores, scores)
    write_text(snakemake.output.failures, failures.to_csv(index=False))
    write_text(snakemake.output.costs, store.costs(scores).to_csv(index=False))
    log.info("%d architectures x %d seeds x %d proxies", len(scores.archs), len(scores.seeds), len(scores.proxies))
