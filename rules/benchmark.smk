# Accuracies for a part of the sample: trained from scratch, inherited from a supernet, or from a table.
rule benchmark_train_shard:
    input:
        images=out("images"),
        manifest=out("manifest"),
        archs=out("archs"),
    output:
        accuracy=out("accuracy_shard"),
    log:
        log_of("benchmark/train-{shard}"),
    benchmark:
        times_of("benchmark/train-{shard}")
    resources:
        mem_mb=grows(3000),
        runtime=grows(720),
    params:
        version=stage_version("benchmark"),
        config=part("space seed device", benchmark="count seeds repeated recipe"),
        shards=len(LABEL_SHARDS),
    script:
        "../scripts/benchmark_train.py"


rule benchmark_train:
    input:
        shards=expand(out("accuracy_shard"), shard=LABEL_SHARDS),
    output:
        accuracy=out("accuracy", method="train"),
    log:
        log_of("benchmark/train"),
    benchmark:
        times_of("benchmark/train")
    localrule: True
    params:
        version=stage_version("benchmark"),
    script:
        "../scripts/benchmark_join.py"


rule benchmark_supernet:
    input:
        images=out("images"),
        manifest=out("manifest"),
        archs=out("archs"),
    output:
        accuracy=out("accuracy", method="supernet"),
        history=out("supernet_history"),
    log:
        log_of("benchmark/supernet"),
    benchmark:
        times_of("benchmark/supernet")
    threads: 2
    resources:
        mem_mb=grows(3000),
        runtime=grows(1440),
    params:
        version=stage_version("benchmark"),
        config=part("space seed device", benchmark="supernet"),
        labelled=config["benchmark"]["inherited"] or config["benchmark"]["count"],
    script:
        "../scripts/benchmark_supernet.py"


rule benchmark_table:
    input:
        manifest=out("manifest"),
        table=given(LISTED),
        archs=out("archs"),
    output:
        accuracy=out("accuracy", method="table"),
    log:
        log_of("benchmark/table"),
    benchmark:
        times_of("benchmark/table")
    localrule: True
    params:
        version=stage_version("benchmark"),
        config=part("space", benchmark="columns table"),
        files=lambda wildcards: states(*LISTED),
    script:
        "../scripts/benchmark_table.py"


# Not part of the report: how well two ways of getting accuracies agree on the same architectures.
rule agreement:
    input:
        train=out("accuracy", method="train"),
        supernet=out("accuracy", method="supernet"),
        archs=out("archs"),
    output:
        agreement=out("agreement"),
    log:
        log_of("benchmark/agreement"),
    benchmark:
        times_of("benchmark/agreement")
    localrule: True
    params:
        version=stage_version("agreement"),
        config=part("seed"),
    script:
        "../scripts/agreement.py"
