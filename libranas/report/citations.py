"""BibTeX of what a run used, from ``references.bib``."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from libranas.zero_cost.registry import PROXIES

#: An entry's ``usedby``, in a line of its own, names what it is cited for: kinds and names, as in the configuration.
REFERENCES = Path(__file__).with_name("references.bib")


def references() -> Iterator[tuple[str, set[str]]]:
    """Yield each entry as text and what it is cited for, such as ``proxy:snip``, ``space:autoformer``, ``method``."""
    for entry in re.split(r"\n(?=@)", REFERENCES.read_text(encoding="utf-8").strip()):
        used = re.search(r"^  usedby = \{(.*)\},\n", entry, re.M)
        yield entry.replace(used[0], "").strip(), set(re.split(r",\s*", used[1]))


def bibtex(config: Mapping, choice: Mapping) -> str:
    """Return the entries of the method, the space, the data set, and the proxies that LIBRA or its combiner chose.

    A proxy of another package has no entry; a comment gives its source.

    Parameters
    ----------
    choice : see :class:`libranas.predictors.selection.Verdict`
    """
    proxies = sorted({*choice["proxies"], *choice["combiner"]["proxies"]})
    used = ["method", f"space:{config['space']['family']}", f"data:{config['data']['adapter']}"]
    used += [f"proxy:{name}" for name in proxies]
    if config["search"]:
        used.append(f"search:{config['search']['method']}")
    entries = [(text, of) for text, of in references() if of & set(used)]
    known = set().union(*(of for _, of in references()))
    comments = [
        f"% {name} has no entry: {PROXIES[name].source}"
        for name in proxies
        if f"proxy:{name}" not in known and name in PROXIES and PROXIES[name].source != "baseline"
    ]
    return "\n\n".join([text for text, _ in entries] + comments)
