# Milliseconds of the blocks of vision transformers, measured here and checked with whole networks. Other jobs
# would disturb it: on this machine it has all cores to itself.
rule latency:
    input:
        manifest=out("manifest"),
    output:
        table=out("latency"),
    log:
        log_of("latency"),
    benchmark:
        times_of("latency")
    priority: 10
    threads: alone(config["latency"]["threads"])
    resources:
        mem_mb=grows(6000),  # all blocks in memory together: 4 GB for the space of AutoFormer-S, 9 for base-paper
        runtime=grows(120),
    params:
        version=stage_version("latency"),
        config=part("space latency seed device"),
    script:
        "../scripts/latency.py"
