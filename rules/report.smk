# Everything that the stages found -> one page. It computes nothing new.
FOUND = {}
if config["search"]:
    FOUND |= {
        "histories": rules.select.input.histories,
        "selected": rules.select.output.selected,
    }
if ROUNDS:
    FOUND["agreement"] = rules.guided.output.agreement
if LATENCY:
    FOUND["latency"] = LATENCY[0]
if config["train"]:
    FOUND |= {"summary": rules.compare.output.summary, "curves": rules.compare.output.curves}
    FOUND |= {"exported": rules.export.output.folder}
if config["published"]["tables"]:
    FOUND |= {name: rules.published.output[name] for name in ("table1", "table3", "table4", "labels")}


rule report:
    input:
        **FOUND,
        manifest=rules.prepare.output.manifest,
        archs=rules.sample.output.archs,
        failures=rules.merge.output.failures,
        costs=rules.merge.output.costs,
        curve=rules.layers.output.curve,
        window=rules.layers.output.window,
        table=rules.layers.output.table,
        accuracy=rules.libra.input.accuracy,
        choice=rules.libra.output.choice,
        methods=rules.libra.output.methods,
        proxies=rules.libra.output.proxies,
        parts=rules.libra.output.parts,
    output:
        html=report(out("report"), category="Report", caption="../report/page.rst"),
    log:
        log_of("report"),
    benchmark:
        times_of("report")
    localrule: True
    params:
        version=stage_version("report"),
        config=config,
        strategies=SEARCHES,
        command=state("command.txt"),
        times=f"{RUN}/times",
    script:
        "../scripts/report.py"
