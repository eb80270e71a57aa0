# What all rules share: the checked configuration, paths, and the names of things.
import os
import shlex
import sys
from contextlib import suppress

from snakemake.exceptions import WorkflowError

sys.path.insert(0, workflow.basedir)

from libranas.runs.cluster import cancel_left_over
from libranas.config.checks import checked, latency_needed
from libranas.core.errors import LibranasError
from libranas.core.files import disk_error, lock, read_json, write_json, write_text
from libranas.core.provenance import stage_version

try:
    config = checked(config, f"{workflow.basedir}/config/schema.yaml")
except LibranasError as error:
    raise WorkflowError(str(error)) from None

RUN = f"{config['results']}/{config['run']}"
SHARDS = [str(k) for k in range(config["sample"]["shards"])]
# Of the architectures that are trained: a training takes longer than all scores of a network, but four fill a job.
LABEL_SHARDS = SHARDS[: max(1, config["benchmark"]["count"] // 4)]
# What finds the winner, and what it is compared with.
STRATEGIES = list(dict.fromkeys([config["search"]["method"], "random", "params"])) if config["search"] else []
# The table of latencies, where something is limited or judged by it.
LATENCY = [f"{RUN}/latency/table.json"] if latency_needed(config) else []
REFERENCE = config["train"]["reference"] if config["train"] else None
ROLES = ["winner", "random", "params_max"] + ["reference"] * bool(REFERENCE)
TRAIN_SEEDS = [str(k) for k in range(config["train"]["seeds"])] if config["train"] else []
WILDCARDS = {"shard": SHARDS, "strategy": STRATEGIES, "role": ROLES, "seed": TRAIN_SEEDS}


def out(path):
    """A result of this run."""
    return f"{RUN}/{path}"


def state(path):
    """Progress of work: never a declared output, because Snakemake deletes those before it reruns a job."""
    return f"{RUN}/state/{path}"


def grows(amount):
    """Memory or minutes of a rule: as much again with every attempt, where the profile retries."""
    return lambda wildcards, attempt: amount * attempt


def alone(threads):
    """Threads of a job that others would disturb: all cores of this machine, on a cluster those that it uses."""
    try:
        return max(threads, workflow.cores)
    except WorkflowError:
        return threads


def full_training_gpus():
    """GPUs of the large training on each node."""
    return 0 if config["device"] == "cpu" else config["full_training"]["processes"]


def full_training_nodes():
    """What the large training asks for: with several nodes of SLURM one task on each, in which it starts its processes.

    Their GPUs are asked for by the node: a sum may be spread unevenly. No tasks are bound to GPUs, torchrun does that.
    """
    nodes, gpus = config["full_training"]["nodes"], full_training_gpus()
    if nodes == 1:
        return {"gpu": gpus} if gpus else {}
    several = {"nodes": nodes, "tasks": nodes, "mpi": "srun"}
    return several | ({"gres": f"gpu:{gpus}", "tasks_per_gpu": 0} if gpus else {})


def end():
    """Forget the SLURM jobs: Snakemake has waited for them or cancelled them."""
    with suppress(FileNotFoundError):
        os.remove(state("slurm.json"))


def begin():
    """Lock this run until Snakemake ends, end SLURM jobs of a killed one, and keep the command line for the report.

    The system lifts the lock however Snakemake ends; Snakemake's own lock (off in profiles/default) would outlive
    a kill. The command line is no parameter of a rule, so that it makes nothing rerun.
    """
    try:
        os.makedirs(state(""), exist_ok=True)
        lock(
            os.open(state("lock"), os.O_RDWR | os.O_CREAT, 0o666),  # open until the process ends
            f"Another Snakemake is at work on {RUN}.",
            "Wait until it has ended, or give this run another name (`run` in the config).",
        )
        # The SLURM plugin gives all jobs of one Snakemake one name; they outlive a `kill -9` of it.
        name, kept = getattr(workflow.scheduler._executor, "run_uuid", None), state("slurm.json")
        if os.path.exists(kept) and (count := cancel_left_over(read_json(kept)["name"])):
            print(f"{count} SLURM jobs of a Snakemake that was killed are cancelled; they go on from where they were.")
        if name:
            write_json(kept, {"name": name})
        else:
            end()
        write_text(state("command.txt"), shlex.join(["snakemake", *sys.argv[1:]]))
    except OSError as error:
        raise WorkflowError(str(disk_error(error, state("lock")))) from None
    except LibranasError as error:
        raise WorkflowError(str(error)) from None


def check_space():
    """Refuse a search space that cannot be, before the images are prepared. Jobs need not ask again."""
    if workflow.is_main_process:
        from libranas.spaces import make_space

        try:
            make_space(config["space"], config["data"]["image_size"], config["data"]["channels"], classes=2)
        except LibranasError as error:
            raise WorkflowError(str(error)) from None


#: Targets that there are only with a section of the configuration, which is null unless asked for.
NEEDED = {"full_training": "full_training", "published": "published.tables"}
NEEDED |= {"select": "search", "compare": "train", "export": "train"}


def check_targets():
    """Explain a target that no rule makes; Snakemake would only say that none does."""
    for target in sys.argv[1:]:  # Snakemake knows its targets only after it has read the rules
        if target in NEEDED and all(r.name != target for r in workflow.rules):
            raise WorkflowError(
                f"There is no {target} in this run.\n  -> Set `{NEEDED[target]}` in the config; config/schema.yaml says to what."
            )
        if target.startswith(f"{RUN}/") and not any(r.is_producer(target) for r in workflow.rules):
            choices = "; ".join(f"{name}: {', '.join(values)}" for name, values in WILDCARDS.items())
            raise WorkflowError(
                f"No stage of this run makes {target}.\n"
                f"  -> docs/architecture.md lists what each stage makes. What paths may name: {choices}."
            )


wildcard_constraints:
    **{name: "|".join(values) for name, values in WILDCARDS.items()},
