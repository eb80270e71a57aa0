# The winner, a random network of equal size, the largest one and perhaps a published one, through the same recipe with several seeds.
rule train:
    input:
        images=rules.prepare.output.images,
        manifest=rules.prepare.output.manifest,
        selected=rules.select.output.selected,
    output:
        metrics=out("train/{role}/{seed}/metrics.json"),
        weights=out("train/{role}/{seed}/model.safetensors"),
    log:
        out("logs/train/{role}-{seed}.log"),
    benchmark:
        out("times/train/{role}-{seed}.tsv")
    # of the CPU; on a GPU, those beyond the first read images for it: --set-threads train=5
    threads: 1
    resources:
        mem_mb=grows(3000),
        runtime=grows(1440),
    params:
        version=stage_version("train"),
        space=config["space"],
        recipe=config["train"]["recipe"],
        seed=config["seed"],
        device=config["device"],
        folder=state("train/{role}-{seed}"),
    script:
        "../scripts/train.py"


rule compare:
    input:
        selected=rules.select.output.selected,
        metrics=expand(rules.train.output.metrics, role=ROLES, seed=TRAIN_SEEDS),
    output:
        summary=out("train/summary.json"),
        curves=out("train/curves.csv"),
    log:
        out("logs/compare.log"),
    benchmark:
        out("times/compare.tsv")
    localrule: True
    threads: 1
    resources:
        mem_mb=grows(1000),
        runtime=grows(10),
    params:
        version=stage_version("train"),
    script:
        "../scripts/compare.py"


rule export:
    input:
        manifest=rules.prepare.output.manifest,
        selected=rules.select.output.selected,
        summary=rules.compare.output.summary,
        histories=rules.select.input.histories,
        weights=expand(rules.train.output.weights, role="winner", seed=TRAIN_SEEDS),
    output:
        folder=directory(out("export/winner")),
    log:
        out("logs/export.log"),
    benchmark:
        out("times/export.tsv")
    localrule: True
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(10),
    params:
        version=stage_version("export"),
        space=config["space"],
        recipe=config["train"]["recipe"],
        licence=config["train"]["licence"],
        seed=config["seed"],
        run=config["run"],
    script:
        "../scripts/export.py"


# Not part of the report: a large training of the winner by torchrun, on as many nodes as the config says.
FULL = config["full_training"]
if FULL:  # docs/cluster.md

    rule full_training:
        input:
            network=rules.export.output.folder,
        output:
            result=out("full_training/result.json"),
            weights=out("full_training/model.safetensors"),
            export=directory(out("full_training/export")),
        log:
            out("logs/full_training.log"),
        benchmark:
            out("times/full_training.tsv")
        # not in an image: it starts its processes with srun, which images lack
        container:
            None
        threads: FULL["threads"]
        resources:
            **full_training_nodes(),
            mem_mb=grows(16000),
            runtime=grows(1440),
        params:
            version=stage_version("train"),
            settings={k: v for k, v in FULL.items() if k != "threads"},
            gpus=full_training_gpus(),
            seed=config["seed"],
            device=config["device"],
            folder=state("full_training"),
        script:
            "../scripts/full_training.py"
