"""The tables of everything that is registered, for the documentation: ``docs/catalogue.md``."""

from collections.abc import Sequence

from libranas.predictors.registry import COMBINERS
from libranas.search.registry import STRATEGIES
from libranas.spaces.registry import FAMILIES
from libranas.zero_cost.registry import PROXIES

HEAD = """\
# What there is

Written by `python -m libranas.config config/schema.yaml docs/catalogue.md` from the registries. The keys of the search
spaces are in [config/schema.yaml](../config/schema.yaml), the data sets in [data sets](data-sets.md).
[Extending libranas](extending.md) shows how to add one.
"""


def catalogue() -> str:
    """Return the page, as Markdown."""
    proxies = [(p.name, p.title, p.source, p.run.name, _yes(p.orientation > 0)) for p in PROXIES.values()]
    combiners = [(c.name, c.title, _yes(c.needs_labels), ", ".join(c.columns)) for c in COMBINERS.values()]
    strategies = [(s.name, s.title, s.note) for s in STRATEGIES.values()]
    spaces = [(f.name, f.space.__name__, _yes(f.weight_sharing), _yes(f.latency_parts)) for f in FAMILIES.values()]
    sections = [
        HEAD,
        "## Proxies (`score.proxies`)\n",
        _table(("name", "what it is", "source", "pass", "higher is better"), proxies),
        "## Combiners (`libra.combiner`, `published.methods`)\n",
        _table(("name", "title", "learns from accuracies", "needs"), combiners),
        "## Search strategies (`search.method`)\n",
        _table(("name", "title", "note"), strategies),
        "## Search spaces (`space.family`)\n",
        _table(("name", "class", "supernet", "latency by a table"), spaces),
    ]
    return "\n".join(sections)


def _yes(value: object) -> str:
    return "yes" if value else "no"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is code."""
    cells = [[f"`{name}`", *(text.replace("|", "\\|") for text in rest)] for name, *rest in rows]
    lines = [head, ["---"] * len(head), *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
