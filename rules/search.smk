# The budget and the fitness -> the winner's search, random search with as many evaluations, and the largest network.
SETTINGS = {k: v for k, v in config["search"].items() if k not in ("method", "pruning", "workers", "winner")}


rule search:
    input:
        manifest=rules.prepare.output.manifest,
        calibration=rules.prepare.output.calibration,
        archs=rules.sample.output.archs,
        table=rules.layers.output.table,
        accuracy=rules.libra.input.accuracy,
        window=rules.layers.output.window,
        choice=rules.libra.output.choice,
        latency=LATENCY,
    output:
        history=out("search/{strategy}.csv"),
    log:
        out("logs/search/{strategy}.log"),
    benchmark:
        out("times/search/{strategy}.tsv")
    wildcard_constraints:
        strategy="evolution|ageing|nsga2|random|params",
    threads: lambda wildcards: 1 if wildcards.strategy == "params" else config["search"]["workers"]
    resources:
        mem_mb=grows(3000),
        runtime=grows(240),
    params:
        version=stage_version("search"),
        score_version=stage_version("score"),
        space=config["space"],
        budget=config["budget"],
        search=SETTINGS,
        options=config["score"]["options"],
        proxies=config["score"]["proxies"],
        psi=config["layers"]["psi"],
        seed=config["seed"],
        device=config["device"],
        progress=state("search/{strategy}.jsonl"),
    script:
        "../scripts/search.py"


rule prune:
    input:
        **rules.search.input,
    output:
        history=out("search/pruning.csv"),
    log:
        out("logs/search/pruning.log"),
    benchmark:
        out("times/search/pruning.tsv")
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(1440),
    params:
        version=stage_version("search"),
        score_version=stage_version("score"),
        space=config["space"],
        search={"seeds": config["search"]["seeds"]},
        pruning=config["search"]["pruning"],
        options=config["score"]["options"],
        proxies=config["score"]["proxies"],
        psi=config["layers"]["psi"],
        seed=config["seed"],
        device=config["device"],
        progress=state("search/pruning.jsonl"),
    script:
        "../scripts/prune.py"


rule select:
    input:
        manifest=rules.prepare.output.manifest,
        histories=expand(rules.search.output.history, strategy=STRATEGIES),
        latency=LATENCY,
        reference=REFERENCE or [],
    output:
        selected=out("search/selected.json"),
    log:
        out("logs/select.log"),
    benchmark:
        out("times/select.tsv")
    localrule: not LATENCY  # those of the chosen networks are measured
    threads: alone(config["latency"]["threads"]) if LATENCY else 1
    resources:
        mem_mb=grows(3000 if LATENCY else 1000),
        runtime=grows(10),
    params:
        version=stage_version("search"),
        space=config["space"],
        budget=config["budget"],
        seed=config["seed"],
        strategies=STRATEGIES,
        winner=config["search"]["winner"],
        objectives=config["search"]["objectives"],
        latency=config["latency"],
        device=config["device"],
    script:
        "../scripts/select_networks.py"
