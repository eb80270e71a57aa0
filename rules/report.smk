# Everything that the stages found -> one page. It computes nothing new.
FOUND = {}
if config["search"]:
    FOUND |= {
        "histories": rules.select.input.histories,
        "selected": out("selected"),
    }
if ROUNDS:
    FOUND["agreement"] = out("labels_agreement")
if LATENCY:
    FOUND["latency"] = LATENCY[0]
if config["train"]:
    FOUND |= {name: out(name) for name in ("summary", "curves", "exported")}
if config["published"]["tables"]:
    FOUND |= {name: out(name) for name in ("table1", "table3", "table4", "labels")}


rule report:
    input:
        **FOUND,
        manifest=out("manifest"),
        archs=out("archs"),
        failures=out("failures"),
        costs=out("costs"),
        curve=out("curve"),
        window=out("window"),
        table=out("table"),
        accuracy=rules.libra.input.accuracy,
        choice=out("choice"),
        methods=out("methods"),
        proxies=out("proxies"),
        parts=out("parts"),
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
        times=f"{FOLDER}/times",
    script:
        "../scripts/report.py"
