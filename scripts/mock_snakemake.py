"""Run one rule's script in this process, as Snakemake would: for a debugger and for tests.

    python -m pdb scripts/mock_snakemake.py score shard=0 --directory /tmp/run --configfile tests/workflow/tiny.yaml

The inputs must lie there already. Snakemake itself reads the rules and fills in the job's paths and parameters.
"""

import argparse
import contextlib
import os
import runpy
import sys
from collections.abc import Iterable
from pathlib import Path

from snakemake.api import SnakemakeApi
from snakemake.dag import DAG
from snakemake.iocontainers import Snakemake
from snakemake.jobs import Job
from snakemake.settings.types import ConfigSettings, OutputSettings, Quietness, ResourceSettings

SCRIPTS = Path(__file__).resolve().parent


def _job(rule: str, configfiles: Iterable = (), config: dict | None = None, directory=os.curdir, cores=2, **wildcards):
    """Return the ``snakemake`` of a rule's script, and the script."""
    settings = ConfigSettings(configfiles=[Path(path) for path in configfiles], config=config or {})
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL}, enable_file_logging=False)) as api:
        read = api.workflow(
            ResourceSettings(cores=cores), settings, snakefile=SCRIPTS.parent / "Snakefile", workdir=Path(directory)
        )
        read.dag()  # sets what a job asks its workflow for
        workflow = read._workflow
        named = workflow.get_rule(rule)
        job = Job(named, DAG(workflow, rules=[named]), {name: str(value) for name, value in wildcards.items()})
        parts = job.input, job.output, job.params, job.wildcards, job.threads, job.resources, job.log
        return Snakemake(*parts, workflow.config, rule, None, str(SCRIPTS)), SCRIPTS / Path(named.script).name


def mock_snakemake(rule: str, **which) -> Snakemake:
    """Return the object that the script of `rule` finds as ``snakemake``.

    Its paths are relative to the working directory of the run.

    Parameters
    ----------
    configfiles, config : as ``--configfile`` and ``--config``; they lie over config.yaml
    directory : working directory of the run, below which its results lie
    cores : as ``--cores``
    wildcards : by name, such as ``shard=0``
    """
    return _job(rule, **which)[0]


def run_script(rule: str, directory=os.curdir, **which) -> Snakemake:
    """Run the script of `rule` in this process; the arguments are those of :func:`mock_snakemake`.

    A script that ends with a message to the user raises SystemExit(1), after it has written its log.
    """
    snakemake, script = _job(rule, directory=directory, **which)
    with contextlib.chdir(directory):
        for path in snakemake.output:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        sys.path.insert(0, str(SCRIPTS))
        try:
            runpy.run_path(str(script), {"snakemake": snakemake}, "__main__")
        finally:
            sys.path.remove(str(SCRIPTS))
    return snakemake


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rule")
    parser.add_argument("wildcards", nargs="*", metavar="NAME=VALUE")
    parser.add_argument("--configfile", nargs="*", default=[])
    parser.add_argument("--directory", default=os.curdir)
    arguments = parser.parse_args()
    wildcards = dict(pair.split("=", 1) for pair in arguments.wildcards)
    run_script(arguments.rule, configfiles=arguments.configfile, directory=arguments.directory, **wildcards)
