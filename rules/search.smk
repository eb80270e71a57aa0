# The budget and the fitness -> evolution, random search with as many evaluations, and the largest network.
rule search:
    input:
        manifest=rules.prepare.output.manifest,
        calibration=rules.prepare.output.calibration,
        table=rules.layers.output.table,
        window=rules.layers.output.window,
        choice=rules.libra.output.choice,
    output:
        history=out("search/{strategy}.csv"),
    log:
        out("logs/search/{strategy}.log"),
    benchmark:
        out("times/search/{strategy}.tsv")
    threads: 1
    resources:
        mem_mb=3000,
        runtime=240,
    params:
        version=stage_version("search"),
        score_version=stage_version("score"),
        space=config["space"],
        budget=config["budget"],
        search=config["search"],
        options=config["score"]["options"],
        psi=config["layers"]["psi"],
        seed=config["seed"],
        device=config["device"],
        progress=state("search/{strategy}.jsonl"),
    script:
        "../scripts/search.py"


rule select:
    input:
        manifest=rules.prepare.output.manifest,
        histories=expand(rules.search.output.history, strategy=STRATEGIES),
    output:
        selected=out("search/selected.json"),
    log:
        out("logs/select.log"),
    benchmark:
        out("times/select.tsv")
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        version=stage_version("search"),
        space=config["space"],
        budget=config["budget"],
        seed=config["seed"],
        strategies=STRATEGIES,
    script:
        "../scripts/select_networks.py"
