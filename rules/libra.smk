# Scores and a few accuracies -> which proxies to combine, judged on architectures that did not choose them.
rule libra:
    input:
        manifest=out("manifest"),
        archs=out("archs"),
        table=out("table"),
        scores=out("scores"),
        window=out("window"),
        accuracy=out("accuracy", method=config["benchmark"]["method"]),
    output:
        choice=out("choice"),
        combiner=out("combiner"),
        methods=report(out("methods"), category="Ranking", caption="../report/methods.rst"),
        proxies=report(out("proxies"), category="Ranking", caption="../report/proxies.rst"),
        parts=report(out("parts"), category="Ranking", caption="../report/parts.rst"),
    log:
        log_of("libra"),
    benchmark:
        times_of("libra")
    resources:
        mem_mb=grows(2000),
        runtime=grows(60),
    params:
        version=stage_version("libra"),
        config=part("space libra seed", score="proxies", layers="psi", benchmark="method paper"),
    script:
        "../scripts/libra.py"
