# A space and a budget -> unique legal architectures, each assigned to a shard by its id.
TABLE = [config["benchmark"]["table"]] if config["benchmark"]["method"] == "table" else []


rule sample:
    input:
        manifest=out("manifest"),
        table=given(TABLE),
        latency=LATENCY if config["budget"]["latency"] else [],
    output:
        archs=out("archs"),
    log:
        log_of("sample"),
    benchmark:
        times_of("sample")
    localrule: True
    params:
        version=stage_version("sample"),
        config=part("space budget sample seed", benchmark="columns"),
        files=lambda wildcards: states(*TABLE),
    script:
        "../scripts/sample.py"
