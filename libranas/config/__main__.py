"""Write what comes from the code: ``python -m libranas.config config/schema.yaml docs/catalogue.md``.

The first file lists every key of the configuration, the second all that is registered.
"""

import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, is_dataclass
from pathlib import Path
from types import NoneType
from typing import get_args

import yaml

from libranas.config.catalogue import catalogue
from libranas.config.schema import Config, space_keys
from libranas.core.files import plain
from libranas.core.typed import Key, keys_of
from libranas.spaces.registry import FAMILIES

HEAD = """\
# Every key of a configuration: what it means, [what it may be], and its default. Without a value here it must be given.
# A configuration is checked when Snakemake starts; a key that is not here is refused.
# Written by `python -m libranas.config config/schema.yaml` from libranas/config/schema.py and the classes named there.
"""


def reference() -> str:
    """Return the list of every key with comments, as YAML."""
    return HEAD + "\n".join(_lines(keys_of(Config), "", {})) + "\n"


def _lines(keys: Mapping[str, Key], indent: str, seen: dict[type, str]) -> Iterator[str]:
    """Yield the lines of a section. `seen`: the names of sections whose keys are listed already, by their class."""
    for name, key in keys.items():
        section = next((kind for kind in (key.hint, *get_args(key.hint)) if kind is dict or is_dataclass(kind)), None)
        if not indent:
            yield ""
        yield from _comment(key, section, indent)
        if section is None:
            yield f"{indent}{name}:{'' if key.default is MISSING else f' {_yaml(key.default)}'}"
        elif section in seen:
            yield f"{indent}{name}:  # the keys of `{seen[section]}`"
        else:
            yield f"{indent}{name}:"
            listed = key.limits["keys"]({}) if "keys" in key.limits else keys_of(section)
            yield from _space(f"{indent}  ", seen) if section is dict else _lines(listed, f"{indent}  ", seen)
            seen[section] = name


def _space(indent: str, seen: dict[type, str]) -> Iterator[str]:
    yield from _lines({"family": space_keys({})["family"]}, indent, seen)
    for family in FAMILIES.values():
        yield f"{indent}(family {family.name}):"
        yield from _lines(family.keys, f"{indent}  ", seen)


def _yaml(value) -> str:
    return yaml.safe_dump([plain(value)], default_flow_style=True, width=1000).strip()[1:-1]


def _comment(key: Key, section: type | None, indent: str) -> list[str]:
    optional = NoneType in get_args(key.hint)
    accepted = key.words(full=True) if section is None else "a section or null" if optional else ""
    text = f"{key.limits['description']}{f' [{accepted}]' if accepted else ''}"
    return textwrap.wrap(text, 120, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


if __name__ == "__main__":
    for path, text in zip(sys.argv[1:], (reference(), catalogue()), strict=False):
        Path(path).write_text(text, encoding="utf-8")
