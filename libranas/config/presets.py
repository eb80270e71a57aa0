"""Presets laid over the default experiment as text: the comments stay, and each value stands there once.

A comment beside a key explains the key: it is kept unless the preset has one of its own. A comment above a key or
inside its value tells of the value: it goes with that.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from libranas.config.checks import own_keys
from libranas.core.errors import LibranasError


@dataclass(frozen=True)
class Entry:
    """A key with its value, as text: comments and blank lines above, the line of the key, lines of the value."""

    above: tuple[str, ...]
    line: str
    body: tuple[str, ...]

    @property
    def key(self) -> str:
        return self.line.split(":")[0].strip()

    @property
    def comment(self) -> str:
        return (re.search(r"\s#\s.*", self.line) or [""])[0].strip()

    @property
    def value(self):
        return yaml.safe_load("\n".join([self.line, *self.body]))[self.key]

    @property
    def lines(self) -> list[str]:
        return [*self.above, self.line, *self.body]

    def explained(self, comment: str) -> "Entry":
        """Return it with `comment` beside the key, unless it has one."""
        line = f"{self.line:<21}  {comment}".rstrip()
        return self if self.comment else replace(self, line=line)


def names(folder: Path) -> list[str]:
    """Return the presets of a workflow's folder."""
    return sorted(path.stem for path in folder.glob("config/*.yaml") if path.stem != "schema")


def experiment(folder: Path, presets: list[str], origin: str) -> str:
    """Return a complete configuration: config.yaml with presets over it, and those that they are to lie on.

    Parameters
    ----------
    folder : of the workflow
    origin : sentence for the head of the file
    """
    wanted = dict.fromkeys(name for preset in presets for name in _below(folder, preset))
    texts = [path.read_text() for path in (folder / "config.yaml", *(folder / f"config/{n}.yaml" for n in wanted))]
    entries = _entries(_head(texts[0])[1])
    for text in texts[1:]:
        entries = _over(entries, _entries(_head(text)[1]))
    first, *others = (p for p in re.split(r"\n#\n", _head(texts[-1])[0]) if not p.startswith("#   "))
    paragraphs = [first, f"# {origin}\n# Every key is described in config/schema.yaml.", *others]
    head = re.sub(r"config/(?!schema)([\w-]+)\.yaml", r"the preset \1", "\n#\n".join(paragraphs))
    return f"{head}\n\n" + "\n".join(line for entry in entries for line in entry.lines).strip() + "\n"


def _below(folder: Path, name: str) -> list[str]:
    """Return a preset after those on top of which it is to lie, as its first line says."""
    if name not in names(folder):
        raise LibranasError(f"There is no preset {name}.", f"Presets: {', '.join(names(folder))}.")
    on = re.match(r"# On top of config/([\w-]+)\.yaml", (folder / f"config/{name}.yaml").read_text())
    return [*(_below(folder, on[1]) if on else []), name]


def _head(text: str) -> tuple[str, list[str]]:
    """Return the comment at the top of a file, and the lines below it."""
    head = re.match(r"(#.*\n)*", text)[0]
    said = head.replace("# Every key is described in config/schema.yaml.\n", "")
    return said.strip("\n"), text[len(head) :].split("\n")


def _entries(lines: Sequence[str]) -> list[Entry]:
    """Return the entries of a block mapping."""
    indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip(" #")), default=0)
    found, above = [], []
    for line in lines:
        if re.match(rf" {{{indent}}}\w+:", line):
            found.append(Entry(tuple(above), line, ()))
            above = []
        elif found and line.startswith(" " * (indent + 1)):
            found[-1] = replace(found[-1], body=(*found[-1].body, line))
        else:
            above.append(line)
    return found


def _over(below: list[Entry], above: list[Entry]) -> list[Entry]:
    """Return the entries `below` with those `above` in their place, and the new ones at the end."""
    new = {entry.key: entry for entry in above}
    merged = [_merged(entry, new.pop(entry.key)) if entry.key in new else entry for entry in below]
    return merged + list(new.values())


def _merged(below: Entry, above: Entry) -> Entry:
    """Return one entry in place of another; sections are merged key by key, as Snakemake does."""
    old, new = below.value, above.value
    line, body = above.line, above.body
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        if below.body and above.body:
            entries = _over(_entries(below.body), _entries(body))
            if above.key == "space":  # choices of another family say nothing
                kept = own_keys({entry.key: entry.value for entry in entries})["space"]
                entries = [entry for entry in entries if entry.key in kept]
            body = tuple(text for entry in entries for text in entry.lines)
        elif set(old) - set(new):  # one of them is in braces
            written = yaml.safe_dump({above.key: old | new}, default_flow_style=None, sort_keys=False, width=110)
            indent = line[: len(line) - len(line.lstrip())]
            first, *body = (indent + text for text in written.splitlines())
            line = f"{first}  {above.comment}".rstrip()
    blank = tuple(text for text in below.above if not text.strip())
    return Entry(blank + tuple(filter(None, above.above)), line, tuple(body)).explained(below.comment)
