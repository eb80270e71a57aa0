"""``libranas init``: a folder in which Snakemake runs the workflow of the installed package."""

import argparse
import shlex
from pathlib import Path

from libranas.config.presets import experiment
from libranas.core.errors import LibranasError
from libranas.core.files import disk_error, write_text
from libranas.runs.workflow import workflow_folder

SNAKEFILE = """\
# The workflow of the installed libranas with the settings of config.yaml. Written by `libranas init`.
#
#   snakemake --cores all            the whole experiment; results go to results/
#   snakemake --cores all libra      up to one stage
#
# Rules of your own may follow, and changed ones: `use rule score from libranas with:` and what differs.
from libranas import workflow_folder


configfile: f"{workflow.basedir}/config.yaml"


module libranas:
    snakefile:
        str(workflow_folder() / "Snakefile")
    config:
        config


use rule * from libranas


onstart:
    libranas.onstart()


onsuccess:
    libranas.onsuccess()


onerror:
    libranas.onerror()


libranas.check_targets()
"""


def add(commands) -> None:
    parser = commands.add_parser("init", description=_init.__doc__)
    parser.set_defaults(run=_init)
    parser.add_argument("folder", type=Path, metavar="DIR", help="new, or without these files")
    parser.add_argument(
        "--preset",
        action="append",
        default=[],
        metavar="NAME",
        help="cifar10, folder, clothing, ...; may be repeated, one lies on top of the other (default: the digits of "
        "scikit-learn, which need no download)",
    )


def _init(arguments: argparse.Namespace) -> None:
    """Write a Snakefile, the complete config.yaml of an experiment, config/schema.yaml, which describes every key, and
    the profiles. Files that exist are never overwritten."""
    workflow, folder = workflow_folder(), arguments.folder
    command = " ".join(["libranas init", *(f"--preset {name}" for name in arguments.preset)])
    texts = {
        "Snakefile": SNAKEFILE,
        "config.yaml": experiment(
            workflow, arguments.preset, f"Written by `{command}`. What is not here is as in the default experiment."
        ),
    }
    for path in (workflow / "config/schema.yaml", *sorted(workflow.glob("profiles/*/*"))):
        texts[str(path.relative_to(workflow))] = path.read_text()
    if there := [name for name in texts if (folder / name).exists()]:
        raise LibranasError(
            f"{folder} has {', '.join(there)} already.", "Name another folder, or move these files away."
        )
    try:
        for name, text in texts.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_text(folder / name, text)
    except OSError as error:
        raise disk_error(error, folder) from None
    print(f"{folder}: {', '.join(texts)}")
    look = f"Say in {folder}/config.yaml where the data are (data.path). " if arguments.preset else ""
    print(f"{look}Then:  cd {shlex.quote(str(folder))} && snakemake --cores all")
