# The budget and the fitness -> the winner's search, random search with as many evaluations, and the largest network.
from libranas.search.registry import STRATEGIES

SETTINGS = {k: v for k, v in config["search"].items() if k not in ("method", "pruning", "workers", "winner")}
SCORED = {"score": "options", "layers": "psi"}


rule search:
    input:
        manifest=rules.prepare.output.manifest,
        calibration=rules.prepare.output.calibration,
        window=rules.layers.output.window,
        combiner=rules.libra.output.combiner,
        latency=LATENCY,
    output:
        history=out("history"),
    log:
        log_of("search/{strategy}"),
    benchmark:
        times_of("search/{strategy}")
    wildcard_constraints:
        strategy="|".join(name for name, strategy in STRATEGIES.items() if strategy.make),
    threads: lambda wildcards: 1 if STRATEGIES[wildcards.strategy].own_fitness else config["search"]["workers"]
    resources:
        mem_mb=grows(3000),
        runtime=grows(240),
    params:
        version=stage_version("search"),
        score_version=stage_version("score"),
        config=part("space budget seed device", **SCORED) | {"search": SETTINGS},
    script:
        "../scripts/search.py"


rule prune:
    input:
        manifest=rules.prepare.output.manifest,
        calibration=rules.prepare.output.calibration,
        window=rules.layers.output.window,
        combiner=rules.libra.output.combiner,
        choice=rules.libra.output.choice,
    output:
        history=out("history", strategy="pruning"),
    log:
        log_of("search/pruning"),
    benchmark:
        times_of("search/pruning")
    resources:
        mem_mb=grows(4000),
        runtime=grows(1440),
    params:
        version=stage_version("search"),
        score_version=stage_version("score"),
        config=part("space seed device", search="seeds pruning", **SCORED),
    script:
        "../scripts/prune.py"


rule select:
    input:
        manifest=rules.prepare.output.manifest,
        histories=expand(rules.search.output.history, strategy=SEARCHES),
        latency=LATENCY,
        reference=REFERENCE or [],
    output:
        selected=out("selected"),
    log:
        log_of("select"),
    benchmark:
        times_of("select")
    localrule: not LATENCY  # those of the chosen networks are measured
    threads: alone(config["latency"]["threads"]) if LATENCY else 1
    resources:
        mem_mb=grows(3000 if LATENCY else 1000),
        runtime=grows(10),
    params:
        version=stage_version("search"),
        config=part("space budget seed latency device", search="winner objectives"),
        strategies=SEARCHES,
    script:
        "../scripts/select_networks.py"
