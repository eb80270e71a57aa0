# A space and a budget -> unique legal architectures, each assigned to a shard by its id.
LISTED = [file_and_task(config["benchmark"]["table"])[0]] if config["benchmark"]["table"] else []
TABLE = LISTED if config["benchmark"]["method"] == "table" else []


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
        config=part("space budget sample seed", benchmark="columns table" if TABLE else "columns"),
        files=lambda wildcards: states(*TABLE),
    script:
        "../scripts/sample.py"
