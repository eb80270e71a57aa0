"""The command line. A command's module is imported only when that command runs, so that ``--help`` is fast.

A mistake of the user ends a command with one message on standard error and exit code 2.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from libranas.core import typed
from libranas.core.errors import LibranasError

#: Command to the module of this package that has it, and its line in ``libranas --help``.
COMMANDS = {
    "init": ("init", "write a folder in which Snakemake runs the workflow"),
    "doctor": ("doctor", "say what is here, what is missing, and how to install it"),
    "plan": ("plan", "what a run will take, before it begins"),
    "score": ("score", "score one network on your images"),
    "proxies": ("score", "list the proxies"),
    "tables": ("tables", "list what a table holds"),
    "libra": ("tables", "rank architectures of a table"),
    "simulate": ("simulate", "search a table with few labels, many times"),
    "compare": ("compare", "runs of the workflow side by side"),
    "networks": ("tables", "read files of other projects"),
    "train": ("train", "train a network, resumably"),
    "export": ("export", "an exported network in other formats"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code: 0, 2 after a LibranasError, 75 after a stop from which it goes on."""
    argv = sys.argv[1:] if argv is None else list(argv)
    arguments = _parser(argv).parse_args(argv)
    try:
        code = arguments.run(arguments) or 0
        sys.stdout.flush()
    except LibranasError as error:
        print(f"libranas: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # who reads the output (`head`, say) had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at its end
        return 0
    return code


def value(kind: type, **limits) -> Callable[[str], Any]:
    """Return the type of an argument that is read as a key of the configuration; `limits` as ``least=1``."""
    read = typed.reader(kind, **limits)

    def of(text: str):
        try:
            return read(text)
        except typed.BadSetting as error:
            raise argparse.ArgumentTypeError(error.what) from None

    return of


#: Whole numbers from 0 and from 1 on.
count, positive = value(int, least=0), value(int, least=1)


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """Make a parser of the command that `argv` names; where it names none, one that knows the commands by name."""
    parser = argparse.ArgumentParser(prog="libranas", description="Zero-shot neural architecture search.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    name = next((argument for argument in argv if not argument.startswith("-")), None)
    if name in COMMANDS:
        importlib.import_module(f"libranas.cli.{COMMANDS[name][0]}").add(commands)
    else:
        for command, (_, line) in COMMANDS.items():
            commands.add_parser(command, help=line)
    return parser
