"""Every command of the documents is checked, or marked with the reason why not.

Commands stand in blocks that are indented by four spaces or fenced as ``sh``. Checked means, for

* ``libranas``: its own parser takes the arguments, and the recipe exists;
* ``snakemake``: Snakemake's parser takes the arguments; rules, profiles and files of configuration exist; and the
  configuration that they and ``--config`` make passes the check that a run begins with;
* ``python FILE``: the file exists and names each option (tests run the scripts of examples/);
* ``make``: the Makefile has the target.

Nothing is executed here: test_commands_run.py runs those of ``libranas`` and says for the others which test does. Every
other command needs ``<!-- not run: REASON -->`` before its block.
"""

import itertools
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from test_config import DEFAULT, merged

from libranas import cli
from libranas.config.checks import checked

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("", "config", "benchmarks", "docs")
PAGES = sorted(page for folder in FOLDERS for page in (ROOT / folder).glob("*.md"))
SHELLS = ("sh", "bash", "console")
PLACEHOLDER = re.compile(r"(^|/)[A-Z]+(\.|$)")  # such as TABLE.csv
#: Files that a reader is told to write.
OF_THE_READER = {"config/clothes.yaml": "config/folder.yaml", "my.yaml": None}


class Wrong(Exception):
    """A command that does not work as it stands."""


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """Yield the mark before each block of commands, "" without one, and the block."""
    mark, block, fence, before = "", [], None, ""
    for line in [*page.splitlines(), "end"]:
        if line.startswith("```"):
            fence = line[3:] if fence is None else None
        elif fence in SHELLS or (fence is None and line.startswith("    ") and (block or not before.strip())):
            block.append(line)
        elif line.strip() and fence is None:
            if block:
                yield mark, "\n".join(block)
            block, mark = [], (re.findall(r"<!-- not run: (.+) -->", line) or [""])[0]
        before = line


def commands(text: str) -> Iterator[list[str]]:
    """Split a block of shell into commands: words without comments, assignments and the folder of the environment."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r"\s(?:&&|\|\||\||;)\s", line):
            words = list(itertools.dropwhile(re.compile(r"[A-Z_]+=").match, shlex.split(part, comments=True)))
            if words:
                yield [words[0].removeprefix(".venv/bin/"), *words[1:]]


def check_libranas(words: list[str]) -> None:
    if words[0] not in cli.COMMANDS:
        raise Wrong(f"libranas has no command {words[0]}")
    if "..." in words:
        return
    given = cli._parser(words).parse_args(words)
    recipe = getattr(given, "recipe", None) or "list"
    if recipe != "list" and not (ROOT / f"libranas/training/recipes/{recipe}.yaml").exists():
        raise Wrong(f"there is no recipe {recipe}")


@cache
def snakemake_parser():
    from snakemake.cli import get_argument_parser

    return get_argument_parser()


@cache
def rules() -> set[str]:
    files = [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")]
    return {name for file in files for name in re.findall(r"^rule (\w+):", file.read_text(), re.M)}


def check_snakemake(words: list[str]) -> None:
    given = snakemake_parser().parse_args(words)
    for target in [*given.targets, *given.forcerun]:
        if target not in rules() and not target.startswith("results/RUN/"):
            raise Wrong(f"there is no rule {target}")
    for profile in given.profile or []:
        if not (ROOT / profile / "profile.yaml").exists():
            raise Wrong(f"there is no profile {profile}")
    config = DEFAULT
    for file in map(str, given.configfile):
        if file := OF_THE_READER.get(file, file):
            config = merged(config, yaml.safe_load((ROOT / file).read_text()))
    checked(merged(config, {key: yaml.safe_load(text) for key, text in (c.split("=", 1) for c in given.config or [])}))


def check_python(words: list[str]) -> None:
    if words[:2] == ["-m", "libranas"]:
        return check_libranas(words[2:])
    if words[0] == "-m" and words[1] not in ("pytest", "libranas.config"):
        raise Wrong(f"python {' '.join(words)} is not known")
    for file in [w for w in words if "/" in w and not (w.startswith(("/", "results/")) or PLACEHOLDER.search(w))]:
        if not (ROOT / file).exists():
            raise Wrong(f"there is no file {file}")
    if words[0] != "-m":
        text = (ROOT / words[0]).read_text()
        for option in [w for w in words if w.startswith("--") and f'"{w}"' not in text]:
            raise Wrong(f"{words[0]} has no option {option}")


def check_torchrun(words: list[str]) -> None:
    check_libranas(words[words.index("libranas") + 1 :])


def check_make(words: list[str]) -> None:
    for target in words:
        if f"\n{target}:" not in (ROOT / "Makefile").read_text():
            raise Wrong(f"the Makefile has no target {target}")


CHECKS = {
    "libranas": check_libranas,
    "snakemake": check_snakemake,
    "python": check_python,
    "torchrun": check_torchrun,
    "make": check_make,
}


def problems(page: str) -> list[str]:
    """Return what is wrong with the commands of a page."""
    found = []
    for mark, block in blocks(page):
        unknown = []
        for name, *words in commands(block):
            if name not in CHECKS:
                unknown.append(name)
                continue
            try:
                CHECKS[name](words)
            except (Exception, SystemExit) as error:  # of parsers and checks of all kinds
                found.append(f"{' '.join([name, *words])}: {error}")
        if unknown and not mark:
            found.append(f"not marked as not run: {', '.join(unknown)}")
        if mark and not unknown:
            found.append(f"marked for nothing: {mark}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_are_checked_or_marked(page):
    assert problems(page.read_text()) == []


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("libranas score --modell x --images y", "2"),
        ("libranas scores", "no command scores"),
        ("libranas train --recipe deit301 --model a --data b --output c", "no recipe deit301"),
        ("snakemake --cores all lybra", "no rule lybra"),
        ("snakemake --configfile config/folder.yml", "No such file"),
        ("snakemake --config search='{label: 80}'", "search.label"),
        ("snakemake --profile profiles/pbs", "no profile"),
        (".venv/bin/python benchmarks/training.py --devise cuda", "no option --devise"),
        ("make rum   # a comment", "no target rum"),
        ("cd x && qsub job.sh", "not marked as not run: cd, qsub"),
    ],
)
def test_a_command_that_does_not_work_is_found(block, said, capsys):
    (found,) = problems(f"Text.\n\n    {block}\n")
    assert said in found


def test_marks_are_read():
    assert problems("Text.\n\n<!-- not run: needs a scheduler -->\n\n    qsub job.sh\n    make run\n") == []
    assert problems("Text.\n\n<!-- not run: no reason -->\n\n    make run\n") == ["marked for nothing: no reason"]
    assert problems("```sh\nqsub job.sh\n```\n") == ["not marked as not run: qsub"]
