# What all rules share: the checked configuration, paths, and the names of things.
import shlex
import sys

from snakemake.exceptions import WorkflowError

sys.path.insert(0, workflow.basedir)

from libranas.config import checked
from libranas.errors import LibranasError
from libranas.files import write_text
from libranas.provenance import stage_version

try:
    config = checked(config, f"{workflow.basedir}/config/schema.yaml")
except LibranasError as error:
    raise WorkflowError(str(error)) from None

RUN = f"{config['results']}/{config['run']}"
SHARDS = [str(k) for k in range(config["sample"]["shards"])]
STRATEGIES = ["evolution", "random", "params"]
ROLES = ["winner", "random", "params_max"]
TRAIN_SEEDS = [str(k) for k in range(config["train"]["seeds"])]


def out(path):
    """A result of this run."""
    return f"{RUN}/{path}"


def state(path):
    """Progress of work: never a declared output, because Snakemake deletes those before it reruns a job."""
    return f"{RUN}/state/{path}"


def record_command():
    """Keep the command line for the report; it is no parameter of a rule, so that it makes nothing rerun."""
    write_text(state("command.txt"), shlex.join(["snakemake", *sys.argv[1:]]))


wildcard_constraints:
    shard="|".join(SHARDS),
    strategy="|".join(STRATEGIES),
    role="|".join(ROLES),
    seed="|".join(TRAIN_SEEDS),
