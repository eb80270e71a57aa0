# Scores and a few accuracies -> which proxies to combine, judged on architectures that did not choose them.
rule libra:
    input:
        manifest=rules.prepare.output.manifest,
        archs=rules.sample.output.archs,
        table=rules.layers.output.table,
        scores=rules.merge.output.scores,
        window=rules.layers.output.window,
        accuracy=out(f"benchmark/{config['benchmark']['method']}.csv"),
    output:
        choice=out("libra/choice.json"),
        methods=out("libra/methods.csv"),
        proxies=out("libra/proxies.csv"),
        parts=out("libra/parts.csv"),
    log:
        out("logs/libra.log"),
    benchmark:
        out("times/libra.tsv")
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(60),
    params:
        version=stage_version("libra"),
        space=config["space"],
        libra=config["libra"],
        proxies=config["score"]["proxies"],
        psi=config["layers"]["psi"],
        paper=config["benchmark"]["paper"],
        seed=config["seed"],
    script:
        "../scripts/libra.py"
