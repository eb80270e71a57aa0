"""Train the winner as a large training does, in many processes: across the nodes of the job, if there are several."""

import shutil
from pathlib import Path

from _stage import stage

with stage(snakemake) as log:
    from libranas.core.errors import LibranasError
    from libranas.core.files import atomic_path
    from libranas.runs.cluster import run_to_its_end, torchrun

    p, settings = snakemake.params, snakemake.params.settings
    arguments = ["-m", "libranas", "train", "--recipe", settings["recipe"], "--model", snakemake.input.network]
    arguments += ["--data", settings["data"], "--output", p.folder, "--seed", str(p.seed), "--device", p.device]
    arguments += ["--restart-on-change", *map(str, settings["options"])]
    command = torchrun(arguments, settings["nodes"], settings["processes"], p.gpus, snakemake.threads)
    log.info("%s", " ".join(command))
    if code := run_to_its_end(command):
        raise LibranasError(
            f"The training ended with exit code {code}; what it said is above.",
            f"Checkpoints are in {p.folder}: the same command goes on from the last one.",
        )
    for path in (snakemake.output.result, snakemake.output.weights):
        with atomic_path(path) as temporary:
            shutil.copyfile(Path(p.folder, Path(path).name), temporary)
    shutil.copytree(Path(p.folder, "export"), snakemake.output.export)
