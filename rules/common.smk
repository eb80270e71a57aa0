# What all rules share: the checked configuration, paths, and the names of things.
import os
import re
import shlex
import sys
from contextlib import suppress
from itertools import filterfalse

from snakemake.common.configfile import load_configfile
from snakemake.exceptions import WorkflowError
from snakemake.sourcecache import LocalSourceFile
from snakemake.utils import update_config

from libranas.config.checks import checked, latency_needed
from libranas.core.errors import LibranasError
from libranas.core.files import disk_error, lock, read_json, write_json, write_text
from libranas.core.provenance import stage_version
from libranas.core.text import file_and_task
from libranas.runs.cluster import cancel_left_over
from libranas.runs.files import FILES, run_path
from libranas.runs.inputs import state_of
from libranas.search.registry import STRATEGIES
from libranas.search.strategies.guided import sizes

if not isinstance(workflow.current_basedir, LocalSourceFile):
    # Of a repository elsewhere Snakemake fetches the scripts of rules; they import this one, which must lie beside them.
    workflow.source_path("../scripts/_stage.py")

# What --configfile, --config or the `config:` of a module do not name is as in config.yaml.
complete = {}
if not workflow.config_settings.replace_workflow_config:  # --replace-workflow-config
    complete = load_configfile(workflow.source_path("../config.yaml"))
update_config(complete, config)
try:
    config = checked(complete)
except LibranasError as error:
    raise WorkflowError(str(error)) from None

RUN = run_path(config)
# Snakemake puts the `prefix:` of a module before the paths of rules, and no others.
FOLDER = workflow.modifier.path_modifier.replace_prefix(RUN)
config["results"] = os.path.dirname(FOLDER)
SHARDS = [str(k) for k in range(config["sample"]["shards"])]
# Of the architectures that are trained: a training takes longer than all scores of a network, but four fill a job.
LABEL_SHARDS = SHARDS[: max(1, config["benchmark"]["count"] // 4)]
# What finds the winner, and what it is compared with.
METHOD = STRATEGIES[config["search"]["method"]] if config["search"] else None
SEARCHES = list(dict.fromkeys([METHOD.name, *["random"] * (not METHOD.trains), "params"])) if METHOD else []
# Networks that each round of a guided search trains, and the jobs that train them.
ROUNDS = sizes(config["search"]["labels"], config["search"]["round"]) if METHOD and METHOD.trains else []
ROUND_SHARDS = [min(len(SHARDS), count) for count in ROUNDS]
# The table of latencies, where something is limited or judged by it.
LATENCY = [f"{RUN}/{FILES['latency']}"] if latency_needed(config) else []
REFERENCE = config["train"]["reference"] if config["train"] else None
TEACHER = (config["train"] or {"recipe": {}})["recipe"].get("teacher") or ""
LONG = config["search"]["long"] if ROUNDS and config["train"] else 0
LONG_SHARDS = SHARDS[:LONG]
LABELLED = bool(ROUNDS) and config["benchmark"]["method"] == "train"
ROLES = ["winner", "random", "params_max"] + ["random_best"] * LABELLED + ["reference"] * bool(REFERENCE)
TRAIN_SEEDS = [str(k) for k in range(config["train"]["seeds"])] if config["train"] else []
WILDCARDS = {
    "shard": SHARDS,
    "round": [str(k) for k in range(len(ROUNDS))],
    "strategy": SEARCHES,
    "role": ROLES,
    "seed": TRAIN_SEEDS,
}


def out(name, **which):
    """A file of this run by its name; what `which` does not say stays a wildcard."""
    return expand(f"{RUN}/{FILES[name]}", allow_missing=True, **which)[0]


def place(name):
    """Where a file of this run lies, for what reads it outside of a rule."""
    return f"{FOLDER}/{FILES[name]}"


def of_rounds(number):
    """What the first rounds of a guided search have scored, proposed and trained."""
    tables = expand([out("candidates"), out("proposals")], round=range(number))
    return tables + [out("round_labels", round=n, shard=k) for n in range(number) for k in range(ROUND_SHARDS[n])]


def log_of(job):
    return f"{RUN}/logs/{job}.log"


def times_of(job):
    """Seconds and memory of a job, as Snakemake measures them."""
    return f"{RUN}/times/{job}.tsv"


def part(sections="", **keys):
    """Whole sections of the configuration, or some keys of a section: all that a rule depends on.

    The script sees no more, and a change of anything else reruns nothing.
    """
    some = {section: {key: config[section][key] for key in names.split()} for section, names in keys.items()}
    return {section: config[section] for section in sections.split()} | some


def given(paths):
    """Files of the user as input: `local` keeps the `prefix:` of a module away."""
    return local(paths) if paths else []


def states(*paths):
    """What changes with files of the user, for a parameter; of files that are gone it is null."""
    try:
        return [state_of(path) for path in paths]
    except LibranasError as error:
        raise WorkflowError(str(error)) from None


def prepared_from():
    """The state of the images that were prepared. What was made of them outlives them: it is no reason to delete it."""
    with suppress(LibranasError):  # there is no manifest
        return read_json(place("manifest")).get("files")


def state(path):
    """Progress of work: never a declared output, because Snakemake deletes those before it reruns a job."""
    return f"{FOLDER}/state/{path}"


def grows(amount):
    """Memory or minutes of a rule: as much again with every attempt, where the profile retries."""
    return lambda wildcards, attempt: amount * attempt


def alone(threads):
    """Threads of a job that others would disturb: all cores of this machine, on a cluster those that it uses."""
    try:
        return max(threads, workflow.cores)
    except WorkflowError:
        return threads


def end():
    """Forget the SLURM jobs: Snakemake has waited for them or cancelled them."""
    with suppress(FileNotFoundError):
        os.remove(state("slurm.json"))


def begin():
    """Lock this run until Snakemake ends, end SLURM jobs of a killed one, and keep command line and settings.

    The system lifts the lock however Snakemake ends; Snakemake's own lock (off in profiles/default) would outlive
    a kill. The command line is no parameter of a rule, so that it makes nothing rerun.
    """
    try:
        os.makedirs(state(""), exist_ok=True)
        lock(
            os.open(state("lock"), os.O_RDWR | os.O_CREAT, 0o666),  # open until the process ends
            f"Another Snakemake is at work on {FOLDER}.",
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
        write_json(state("config.json"), config)
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


#: Files of rules that there are only with a part of the configuration, which is null unless asked for.
OPTIONAL = {"search": "search", "train": "train", "full_training": "full_training", "published": "published.tables"}


def asked_for(name):
    """Whether the configuration has what an optional file of rules needs."""
    section, _, key = OPTIONAL[name].partition(".")
    return bool(config[section][key] if key else config[section])


def check_targets():
    """Explain a target that no rule makes; Snakemake would only say that none does."""
    lacking = {}  # rule to what it needs
    for name in filterfalse(asked_for, OPTIONAL):
        with open(workflow.source_path(f"{name}.smk")) as file:
            lacking |= dict.fromkeys(re.findall(r"^rule\s+(\w+)", file.read(), re.M), OPTIONAL[name])
    for target in sys.argv[1:]:  # Snakemake knows its targets only after it has read the rules
        if target in lacking and not workflow.is_rule(target):
            raise WorkflowError(
                f"There is no {target} in this run.\n  -> Set `{lacking[target]}` in the config; config/schema.yaml says to what."
            )
        if target.startswith(f"{FOLDER}/") and not any(r.is_producer(target) for r in workflow.rules):
            choices = "; ".join(f"{name}: {', '.join(values)}" for name, values in WILDCARDS.items())
            raise WorkflowError(
                f"No stage of this run makes {target}.\n"
                f"  -> docs/architecture.md lists what each stage makes. What paths may name: {choices}."
            )


wildcard_constraints:
    **{name: "|".join(values) for name, values in WILDCARDS.items()},
