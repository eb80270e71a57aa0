# Not part of the report: a large training of the winner by torchrun, on as many nodes as the config says (docs/cluster.md).
from libranas.runs.cluster import job_resources

FULL = config["full_training"]
# Of --weights FILE, for one; what is no file has no state.
NAMED = [FULL["recipe"], FULL["data"].partition(":")[2]] + [str(o).rpartition("=")[2] for o in FULL["options"]]
GPUS = 0 if config["device"] == "cpu" else FULL["processes"]  # on each node


rule full_training:
    input:
        network=out("exported"),
    output:
        result=out("full_result"),
        weights=out("full_weights"),
        export=directory(out("full_export")),
    log:
        log_of("full_training"),
    benchmark:
        times_of("full_training")
    # not in an image: it starts its processes with srun, which images lack
    container:
        None
    threads: FULL["threads"]
    resources:
        **job_resources(FULL["nodes"], GPUS),
        mem_mb=grows(16000),
        runtime=grows(1440),
    params:
        version=stage_version("train"),
        config=part("seed device", full_training="recipe data options nodes processes"),
        gpus=GPUS,
        files=lambda wildcards: states(*NAMED),
    script:
        "../scripts/full_training.py"
