"""The registry of data sets.

To add one: write a :class:`libranas.data.source.DataSet` record in a new file of ``libranas/data/adapters``.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from libranas.core.errors import LibranasError
from libranas.core.registry import Registry
from libranas.data.source import DataSet, Source

DATA_SETS = Registry(DataSet, "libranas.data.adapters", "data set", "libranas.data_sets")


@contextmanager
def open_data_set(name: str, path: Path | None, called: str) -> Iterator[Source]:
    """Open a data set where there is no configuration: errors name `called` in the place of ``data.path``."""
    try:
        with DATA_SETS[name].open(path) as source:
            yield source
    except LibranasError as error:
        what = error.what.replace(f" (data.adapter is '{name}')", "").replace("data.path", called)
        raise LibranasError(what, re.sub("`data.path`( in the config)?", f"`{called}`", error.todo)) from error


def table() -> str:
    """Return the data sets as a Markdown table, for the documentation."""
    rows = [f"| `{d.name}` | {d.layout} | {d.splits} |" for d in DATA_SETS.values()]
    return "\n".join(["| adapter | `data.path` | splits it has |", "|---|---|---|", *rows])
