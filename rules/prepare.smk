# Images of any source -> packed splits, manifest, calibration batch.
rule prepare:
    output:
        images=out("images"),
        manifest=out("manifest"),
        calibration=out("calibration"),
    log:
        log_of("prepare"),
    benchmark:
        times_of("prepare")
    threads: 2
    resources:
        mem_mb=grows(2000),
        runtime=grows(240),
    params:
        version=stage_version("prepare"),
        config=part("data seed"),
        files=lambda wildcards: states(config["data"]["path"])[0] or prepared_from(),
    script:
        "../scripts/prepare.py"
