"""Data frames of scores. Suffixes: A architectures, S seeds."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from libranas.core.errors import LibranasError
from libranas.core.stats import mean_of_seeds
from libranas.scores.table import COSTS, Scores, many


def frame(scores: Scores | Iterable[Scores]) -> pd.DataFrame:
    """One row an architecture: ``params``, ``macs`` and every proxy, higher is better, float64.

    A proxy is the mean over its finite seeds; where no seed is finite it is the infinity that they share
    or else NaN. ``attrs["ignored_seeds"]`` counts, for each proxy, non-finite values that were left out of
    a mean. A proxy called ``params`` takes the place of the column of that name.
    """
    parts, ignored = [], {}
    for part in many(scores):
        columns = {"params": part.params_A.astype("f8"), "macs": part.macs_A.astype("f8")}
        for name, table in part.proxies.items():
            columns[name], count = mean_of_seeds(table.value_AS, table.orientation)
            ignored[name] = ignored.get(name, 0) + count
        parts.append(pd.DataFrame(columns, index=pd.Index([arch.id for arch in part.archs], name="id")))
    out = parts[0] if len(parts) == 1 else pd.concat(parts)
    out.attrs["ignored_seeds"] = ignored
    return out


def costs(scores: Scores | Iterable[Scores]) -> pd.DataFrame:
    """Return the cost of the pass of each proxy.

    Returns
    -------
    DataFrame, a row a proxy: ``proxy``, ``pass``, ``seconds`` and ``peak_bytes`` (medians over networks and
    seeds; NaN where nothing was measured), ``shared`` (number of proxies of these scores that share the pass
    and so its cost, this one included)
    """
    measured: dict[tuple[str, str], list[np.ndarray]] = {}
    for part in many(scores):
        used = {proxy: table.pass_name for proxy, table in part.proxies.items()}
        for name in set(used.values()) & part.passes.keys():
            for key in COSTS:
                measured.setdefault((name, key), []).append(getattr(part.passes[name], key).ravel())
    names = list(used.values())
    medians = {k: pd.Series(np.concatenate(values)).median() for k, values in measured.items()}
    rows = [
        (proxy, name, *(medians.get((name, key), np.nan) for key in COSTS), names.count(name))
        for proxy, name in used.items()
    ]
    return pd.DataFrame(rows, columns=["proxy", "pass", "seconds", "peak_bytes", "shared"])


def nonfinite(scores: Scores | Iterable[Scores]) -> pd.DataFrame:
    """Count the values (one for each architecture and seed) that are not finite: ``proxy``, ``reason``, ``count``."""
    rows = [
        (name, reason)
        for part in many(scores)
        for name, table in part.proxies.items()
        for reason in table.reason_AS[~np.isfinite(table.value_AS)]
    ]
    return pd.DataFrame(rows, columns=["proxy", "reason"]).value_counts(sort=False).reset_index()


def check_failures(scores: Scores | Iterable[Scores], allowed: float) -> pd.DataFrame:
    """Non-finite scores by proxy and reason; an error if any proxy fails on more than `allowed` of the networks.

    Parameters
    ----------
    allowed : float
        Share in [0, 1]; config key ``score.max_failed``.
    """
    if not 0 <= allowed <= 1:
        raise ValueError(f"allowed must be a share in [0, 1], got {allowed}")
    table = nonfinite(scores)
    cells = sum(len(part.archs) * len(part.seeds) for part in many(scores))
    for proxy, part in table.groupby("proxy"):
        if (failed := part["count"].sum()) > allowed * cells:
            raise LibranasError(
                f"Proxy {proxy} is not finite for {failed} of {cells} networks: {'; '.join(part['reason'])}.",
                f"Take {proxy} out of `score.proxies`, or allow it with `score.max_failed` (now {allowed}): such "
                "scores are kept as NaN, counted in the report and rank last.",
            )
    return table
