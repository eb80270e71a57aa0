# Untrained networks -> zero-cost scores; then the label-free window of layers.
from libranas.zero_cost.registry import versions


rule score:
    input:
        manifest=out("manifest"),
        images=out("images"),
        calibration=out("calibration"),
        archs=out("archs"),
    output:
        scores=out("shard"),
    log:
        log_of("score/{shard}"),
    benchmark:
        times_of("score/{shard}")
    priority: 1  # before trainings: more jobs wait for the scores
    resources:
        mem_mb=grows(3000),
        runtime=grows(240),
    params:
        version=stage_version("score"),
        proxy_versions=versions(config["score"]["proxies"]),
        config=part("space seed device", score="seeds proxies options readout"),
    script:
        "../scripts/score.py"


rule merge:
    input:
        archs=out("archs"),
        shards=expand(out("shard"), shard=SHARDS),
    output:
        scores=out("scores"),
        failures=out("failures"),
        costs=report(out("costs"), category="Scores", caption="../report/costs.rst"),
    log:
        log_of("merge"),
    benchmark:
        times_of("merge")
    localrule: True
    resources:
        mem_mb=grows(2000),
        runtime=grows(30),
    params:
        version=stage_version("score"),
        config=part(score="max_failed"),
    script:
        "../scripts/merge.py"


rule layers:
    input:
        archs=out("archs"),
        scores=out("scores"),
    output:
        curve=report(out("curve"), category="Scores", caption="../report/curve.rst"),
        window=out("window"),
        table=out("table"),
    log:
        log_of("layers"),
    benchmark:
        times_of("layers")
    localrule: True
    resources:
        mem_mb=grows(2000),
        runtime=grows(30),
    params:
        version=stage_version("layers"),
        config=part("layers"),
    script:
        "../scripts/layers.py"
