# The budget and the fitness -> the winner's search, random search with as many evaluations, and the largest network.
OF_OTHERS = "method pruning workers winner labels round long".split()  # what no strategy of the rule search takes
SETTINGS = {k: v for k, v in config["search"].items() if k not in OF_OTHERS}
SCORED = {"score": "options readout", "layers": "psi"}


rule search:
    input:
        manifest=out("manifest"),
        images=out("images"),
        calibration=out("calibration"),
        window=out("window"),
        combiner=out("combiner"),
        latency=LATENCY,
    output:
        history=report(
            out("history"), category="Search", caption="../report/history.rst", labels={"search": "{strategy}"}
        ),
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


EVERY_ROUND = of_rounds(len(ROUNDS))


rule guided_propose:
    input:
        manifest=out("manifest"),
        images=out("images"),
        calibration=out("calibration"),
        archs=out("archs"),
        table=out("table"),
        window=out("window"),
        latency=LATENCY,
        before=lambda wildcards: of_rounds(int(wildcards.round)),
    output:
        candidates=out("candidates"),
        proposals=out("proposals"),
    log:
        log_of("search/guided/propose-{round}"),
    benchmark:
        times_of("search/guided/propose-{round}")
    threads: config["search"]["workers"]
    resources:
        mem_mb=grows(3000),
        runtime=grows(240),
    params:
        version=stage_version("search"),
        score_version=stage_version("score"),
        trainings=lambda wildcards: ROUNDS[int(wildcards.round)],
        shards=lambda wildcards: ROUND_SHARDS[: int(wildcards.round)],
        config=part(
            "space budget seed device",
            score="options readout proxies",
            layers="psi",
            search="population parents seeds objectives winner",
        ),
    script:
        "../scripts/guided_propose.py"


rule guided_train:
    input:
        images=out("images"),
        manifest=out("manifest"),
        proposals=out("proposals"),
    output:
        labels=out("round_labels"),
    log:
        log_of("search/guided/train-{round}-{shard}"),
    benchmark:
        times_of("search/guided/train-{round}-{shard}")
    resources:
        mem_mb=grows(3000),
        runtime=grows(720),
    params:
        version=stage_version("benchmark"),
        config=part("space seed device", benchmark="seeds recipe"),
        shards=lambda wildcards: ROUND_SHARDS[int(wildcards.round)],
    script:
        "../scripts/guided_train.py"


rule guided_finalists:
    input:
        manifest=out("manifest"),
        archs=out("archs"),
        table=out("table"),
        latency=LATENCY,
        before=EVERY_ROUND,
    output:
        finalists=out("finalists"),
    log:
        log_of("search/guided/finalists"),
    benchmark:
        times_of("search/guided/finalists")
    localrule: True
    params:
        version=stage_version("search"),
        config=part("space budget seed", score="proxies"),
        shards=ROUND_SHARDS,
        finalists=LONG,
    script:
        "../scripts/guided_finalists.py"


rule guided_long:
    input:
        images=out("images"),
        manifest=out("manifest"),
        finalists=out("finalists"),
    output:
        accuracy=out("long"),
    log:
        log_of("search/guided/long-{shard}"),
    benchmark:
        times_of("search/guided/long-{shard}")
    resources:
        mem_mb=grows(3000),
        runtime=grows(1440),
    params:
        version=stage_version("train"),
        shards=len(LONG_SHARDS),
        config=part("space seed device", train="recipe") if LONG else {},
        files=lambda wildcards: states(TEACHER.removeprefix("local-dir:")),
    script:
        "../scripts/guided_long.py"


rule guided:
    input:
        manifest=out("manifest"),
        archs=out("archs"),
        table=out("table"),
        latency=LATENCY,
        before=EVERY_ROUND,
        long=expand(out("long"), shard=LONG_SHARDS),
    output:
        history=report(
            out("history", strategy="guided"),
            category="Search",
            caption="../report/guided.rst",
            labels={"search": "guided"},
        ),
        agreement=out("labels_agreement"),
    log:
        log_of("search/guided"),
    benchmark:
        times_of("search/guided")
    localrule: True
    params:
        version=stage_version("search"),
        config=part("space budget seed", score="proxies", search="objectives"),
        shards=ROUND_SHARDS,
        long_shards=len(LONG_SHARDS),
    script:
        "../scripts/guided.py"


rule prune:
    input:
        manifest=out("manifest"),
        images=out("images"),
        calibration=out("calibration"),
        window=out("window"),
        combiner=out("combiner"),
        choice=out("choice"),
    output:
        history=report(
            out("history", strategy="pruning"),
            category="Search",
            caption="../report/history.rst",
            labels={"search": "pruning"},
        ),
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
        manifest=out("manifest"),
        histories=expand(out("history"), strategy=SEARCHES),
        latency=LATENCY,
        reference=given(REFERENCE),
        labelled=out("accuracy", method="train") if LABELLED else [],
    output:
        selected=report(out("selected"), category="Search", caption="../report/selected.rst"),
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
        files=lambda wildcards: states(REFERENCE),
    script:
        "../scripts/select_networks.py"
