"""The command line: ``libranas score`` and ``proxies``, ``libra`` and ``networks``, ``train``, ``export``.

A mistake of the user ends a command with one message on standard error and exit code 2.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from libranas.cli import export, score, tables, train
from libranas.core.errors import LibranasError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, 2 after a LibranasError was printed, 75 after a stop by a
    signal from which the same command goes on."""
    arguments = _parser().parse_args(argv)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="libranas", description="Zero-cost proxies of untrained networks.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (score, tables, train, export):
        module.add(commands)
    return parser
