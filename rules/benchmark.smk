# Accuracies for a part of the sample: trained from scratch, inherited from a supernet, or from a table.
rule benchmark_train_shard:
    input:
        images=rules.prepare.output.images,
        manifest=rules.prepare.output.manifest,
        archs=rules.sample.output.archs,
    output:
        accuracy=out("benchmark/train/{shard}.csv"),
    log:
        out("logs/benchmark/train-{shard}.log"),
    benchmark:
        out("times/benchmark/train-{shard}.tsv")
    threads: 1
    resources:
        mem_mb=grows(3000),
        runtime=grows(720),
    params:
        version=stage_version("benchmark"),
        space=config["space"],
        labelled=config["benchmark"]["count"],
        shards=len(LABEL_SHARDS),
        seeds=config["benchmark"]["seeds"],
        repeated=config["benchmark"]["repeated"],
        recipe=config["benchmark"]["recipe"],
        seed=config["seed"],
        device=config["device"],
        progress=state("benchmark/train-{shard}.jsonl"),
    script:
        "../scripts/benchmark_train.py"


rule benchmark_train:
    input:
        shards=expand(rules.benchmark_train_shard.output.accuracy, shard=LABEL_SHARDS),
    output:
        accuracy=out("benchmark/train.csv"),
    log:
        out("logs/benchmark/train.log"),
    benchmark:
        out("times/benchmark/train.tsv")
    localrule: True
    threads: 1
    resources:
        mem_mb=grows(1000),
        runtime=grows(10),
    params:
        version=stage_version("benchmark"),
    script:
        "../scripts/benchmark_join.py"


rule benchmark_supernet:
    input:
        images=rules.prepare.output.images,
        manifest=rules.prepare.output.manifest,
        archs=rules.sample.output.archs,
    output:
        accuracy=out("benchmark/supernet.csv"),
        history=out("benchmark/supernet_history.csv"),
    log:
        out("logs/benchmark/supernet.log"),
    benchmark:
        out("times/benchmark/supernet.tsv")
    threads: 2
    resources:
        mem_mb=grows(3000),
        runtime=grows(1440),
    params:
        version=stage_version("benchmark"),
        space=config["space"],
        labelled=config["benchmark"]["inherited"] or config["benchmark"]["count"],
        recipe=config["benchmark"]["supernet"],
        seed=config["seed"],
        device=config["device"],
        checkpoint=state("benchmark/supernet"),
    script:
        "../scripts/benchmark_supernet.py"


rule benchmark_table:
    input:
        manifest=rules.prepare.output.manifest,
        table=config["benchmark"]["table"] or [],
        archs=rules.sample.output.archs,
    output:
        accuracy=out("benchmark/table.csv"),
    log:
        out("logs/benchmark/table.log"),
    benchmark:
        out("times/benchmark/table.tsv")
    localrule: True
    threads: 1
    resources:
        mem_mb=grows(1000),
        runtime=grows(10),
    params:
        version=stage_version("benchmark"),
        space=config["space"],
        columns=config["benchmark"]["columns"],
    script:
        "../scripts/benchmark_table.py"


# Not part of the report: how well two ways of getting accuracies agree on the same architectures.
rule agreement:
    input:
        train=rules.benchmark_train.output.accuracy,
        supernet=rules.benchmark_supernet.output.accuracy,
        archs=rules.sample.output.archs,
    output:
        agreement=out("benchmark/agreement.json"),
    log:
        out("logs/benchmark/agreement.log"),
    benchmark:
        out("times/benchmark/agreement.tsv")
    localrule: True
    threads: 1
    resources:
        mem_mb=grows(1000),
        runtime=grows(10),
    params:
        version=stage_version("agreement"),
        seed=config["seed"],
    script:
        "../scripts/agreement.py"
