# The winner, a random network of equal size, the largest one and perhaps a published one, through the same recipe with several seeds.
rule train:
    input:
        images=out("images"),
        manifest=out("manifest"),
        selected=out("selected"),
    output:
        metrics=out("metrics"),
        weights=out("weights"),
    log:
        log_of("train/{role}-{seed}"),
    benchmark:
        times_of("train/{role}-{seed}")
    # of the CPU; on a GPU, those beyond the first read images for it: --set-threads train=5
    threads: 1
    resources:
        mem_mb=grows(3000),
        runtime=grows(1440),
    params:
        version=stage_version("train"),
        config=part("space seed device", train="recipe"),
        files=lambda wildcards: states(TEACHER.removeprefix("local-dir:")),
    script:
        "../scripts/train.py"


rule compare:
    input:
        selected=out("selected"),
        metrics=expand(out("metrics"), role=ROLES, seed=TRAIN_SEEDS),
    output:
        summary=report(out("summary"), category="Training", caption="../report/summary.rst"),
        curves=report(out("curves"), category="Training", caption="../report/curves.rst"),
    log:
        log_of("compare"),
    benchmark:
        times_of("compare")
    localrule: True
    params:
        version=stage_version("train"),
        roles=ROLES,
        seeds=len(TRAIN_SEEDS),
    script:
        "../scripts/compare.py"


rule export:
    input:
        manifest=out("manifest"),
        selected=out("selected"),
        summary=out("summary"),
        histories=rules.select.input.histories,
        weights=expand(out("weights"), role="winner", seed=TRAIN_SEEDS),
    output:
        folder=directory(out("exported")),
    log:
        log_of("export"),
    benchmark:
        times_of("export")
    localrule: True
    resources:
        mem_mb=grows(2000),
        runtime=grows(10),
    params:
        version=stage_version("export"),
        config=part("space seed run", train="recipe licence"),
        strategies=SEARCHES,
    script:
        "../scripts/export.py"
