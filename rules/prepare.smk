# Images of any source -> packed splits, manifest, calibration batch.
rule prepare:
    output:
        images=out("data/images.h5"),
        manifest=out("data/manifest.json"),
        calibration=out("data/calibration.npz"),
    log:
        out("logs/prepare.log"),
    benchmark:
        out("times/prepare.tsv")
    threads: 2
    resources:
        mem_mb=grows(2000),
        runtime=grows(240),
    params:
        version=stage_version("prepare"),
        data=config["data"],
        seed=config["seed"],
    script:
        "../scripts/prepare.py"
