"""Prepare the data set: packed images, manifest, calibration batch."""

from pathlib import Path

from _stage import stage

with stage(snakemake) as log:
    from libranas.core.progress import progress
    from libranas.data.prepare import prepare

    folder = Path(snakemake.output.manifest).parent
    manifest = prepare(snakemake.params.data, folder, snakemake.params.seed, snakemake.threads, progress)
    for warning in manifest["warnings"]:
        log.warning("%s", warning)
    log.info("%d classes: %s", len(manifest["classes"]), ", ".join(map(str, manifest["classes"][:20])))
