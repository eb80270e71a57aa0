"""The history of a search as a table."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from libranas.core import pareto
from libranas.search.base import Evaluated, points
from libranas.spaces import Budget, Space


def history_table(
    history: Sequence[Evaluated],
    space: Space,
    first: int = 1,
    budget: Budget | None = None,
    objectives: Sequence[str] = (),
) -> pd.DataFrame:
    """One row an evaluation: ``evaluation, id, fitness, best`` (so far), ``params, macs``, scores, ``architecture``.

    With a budget that looks it up also ``latency`` (milliseconds), and with objectives ``front``: whether nothing that
    was evaluated is both fitter and cheaper.

    Parameters
    ----------
    first : number of the first evaluation: what was scored before to get there counts
    """
    best = np.maximum.accumulate([e.fitness for e in history])
    table = pd.DataFrame(
        {
            "evaluation": n,
            "id": e.arch.id,
            "fitness": e.fitness,
            "best": b,
            "params": space.params(e.arch),
            "macs": space.macs(e.arch),
            **({"latency": budget.clock(e.arch)} if budget and budget.clock else {}),
            **{f"score_{name}": value for name, value in e.detail.items()},
            "architecture": e.arch.json,
        }
        for n, (e, b) in enumerate(zip(history, best, strict=True), start=first)
    )
    if objectives:
        table["front"] = table.index.isin(pareto.front(points(table["fitness"], *(table[n] for n in objectives))))
    return table
