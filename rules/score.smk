# Untrained networks -> zero-cost scores; then the label-free window of layers.
from libranas.zero_cost.registry import versions


rule score:
    input:
        manifest=rules.prepare.output.manifest,
        calibration=rules.prepare.output.calibration,
        archs=rules.sample.output.archs,
    output:
        scores=out("scores/shards/{shard}.h5"),
    log:
        out("logs/score/{shard}.log"),
    benchmark:
        out("times/score/{shard}.tsv")
    threads: 1
    resources:
        mem_mb=grows(3000),
        runtime=grows(240),
    params:
        version=stage_version("score"),
        space=config["space"],
        seeds=config["score"]["seeds"],
        proxies=config["score"]["proxies"],
        proxy_versions=versions(config["score"]["proxies"]),
        options=config["score"]["options"],
        seed=config["seed"],
        device=config["device"],
        progress=state("score/{shard}.jsonl"),
    script:
        "../scripts/score.py"


rule merge:
    input:
        archs=rules.sample.output.archs,
        shards=expand(rules.score.output.scores, shard=SHARDS),
    output:
        scores=out("scores/scores.h5"),
        failures=out("scores/failures.csv"),
        costs=out("scores/costs.csv"),
    log:
        out("logs/merge.log"),
    benchmark:
        out("times/merge.tsv")
    localrule: True
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(30),
    params:
        version=stage_version("score"),
        max_failed=config["score"]["max_failed"],
    script:
        "../scripts/merge.py"


rule layers:
    input:
        archs=rules.sample.output.archs,
        scores=rules.merge.output.scores,
    output:
        curve=out("layers/curve.csv"),
        window=out("layers/window.json"),
        table=out("layers/table.csv"),
    log:
        out("logs/layers.log"),
    benchmark:
        out("times/layers.tsv")
    localrule: True
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(30),
    params:
        version=stage_version("layers"),
        layers=config["layers"],
    script:
        "../scripts/layers.py"
