"""Read values that a user writes on a command line; write tables for a terminal."""

import re
from collections.abc import Sequence

import yaml

from libranas.core.errors import LibranasError


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]], right: set[int] = frozenset()) -> str:
    """Set columns two spaces apart; those of `right` flush right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for row in (head, *rows):
        cells = (c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def literal(text: str):
    """Read a value as YAML (and so JSON) does, or a tuple as Python writes it; what it cannot read is text."""
    try:
        return _numbers(yaml.safe_load(re.sub(r"^\((.*)\)$", r"[\1]", text.strip())))
    except yaml.YAMLError:
        return text


def _numbers(value):
    """YAML 1.1 takes 1e-3 for text: here it is a number."""
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def key_value(text: str, where: str) -> tuple[str, object]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise LibranasError(f"{where} '{text}' is not of the form key=value.")
    return key.strip(), literal(value)


def split(text: str) -> list[str]:
    """Cut a name and the pairs key=value after it: a comma in a list does not end a value, one before a key does."""
    return re.split(r",(?=\s*\w+\s*=)", text)
