# A space and a budget -> unique legal architectures, each assigned to a shard by its id.
rule sample:
    input:
        manifest=rules.prepare.output.manifest,
        table=[config["benchmark"]["table"]] if config["benchmark"]["method"] == "table" else [],
        latency=LATENCY if config["budget"]["latency"] else [],
    output:
        archs=out("sample/archs.csv"),
    log:
        out("logs/sample.log"),
    benchmark:
        out("times/sample.tsv")
    localrule: True
    threads: 1
    resources:
        mem_mb=grows(1000),
        runtime=grows(30),
    params:
        version=stage_version("sample"),
        space=config["space"],
        budget=config["budget"],
        columns=config["benchmark"]["columns"],
        sample=config["sample"],
        seed=config["seed"],
    script:
        "../scripts/sample.py"
