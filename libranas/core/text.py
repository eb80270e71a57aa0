"""Read values that a user writes on a command line; write tables for a terminal."""

import os
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


class _Loader(yaml.SafeLoader):
    """YAML 1.1 with 1e-3 and 08 as numbers, and without what nobody means here: 010 for 8, 1:30 for 90, 0x10, dates."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if tag.split(":")[-1] in ("bool", "null", "merge")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


for _kind, _number in {
    "int": r"[-+]?(0|[1-9][0-9_]*)$",
    "float": r"[-+]?((?!0[0-7_]+$)[0-9][0-9_]*(\.[0-9_]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|nan)$",
}.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(_number), list("-+.0123456789"))


def literal(text: str):
    """Read a value as YAML (and so JSON) does, or a tuple as Python writes it; what it cannot read is text."""
    try:
        return yaml.load(re.sub(r"^\((.*)\)$", r"[\1]", text.strip()), _Loader)
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: more digits than Python reads
        return text


def key_value(text: str, where: str) -> tuple[str, object]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise LibranasError(f"{where} '{text}' is not of the form key=value.")
    return key.strip(), literal(value)


def file_and_task(location: str | os.PathLike) -> tuple[str, str | None]:
    """Cut ``FILE:TASK``, the name of a table in a file of several; the task is None where none is named."""
    text = os.fspath(location)
    file, _, task = text.rpartition(":")
    return (file, task) if file and task and "/" not in task and not os.path.exists(text) else (text, None)


def split(text: str) -> list[str]:
    """Cut a name and the pairs key=value after it: a comma in a list does not end a value, one before a key does."""
    return re.split(r",(?=\s*\w+\s*=)", text)
