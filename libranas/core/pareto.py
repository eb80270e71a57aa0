"""Minimise several numbers at once: fronts, NSGA-II's order and hypervolume, computed by pymoo.

A row of ``point_PM`` is a candidate, a column an objective; lower is better. Rows that are not finite are last or left
out. Legend: P candidates, M objectives.
"""

import numpy as np

# pymoo is imported where it is used, so that whatever needs no front runs without it.


def _finite(point_PM: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the finite rows, and these rows."""
    point_PM = np.asarray(point_PM, dtype=np.float64)
    at = np.flatnonzero(np.isfinite(point_PM).all(axis=1))
    return at, point_PM[at]


def front(point_PM: np.ndarray) -> np.ndarray:
    """Return the positions of the non-dominated rows, the lowest first objective first; of equals the first."""
    from pymoo.util.nds.non_dominated_sorting import find_non_dominated

    at, point_PM = _finite(point_PM)
    if not len(at):
        return at
    found = np.sort(find_non_dominated(point_PM))
    return at[found[np.unique(point_PM[found], axis=0, return_index=True)[1]]]


def best_first(point_PM: np.ndarray, count: int) -> np.ndarray:
    """Return the positions of the `count` rows that NSGA-II keeps (Deb et al., 2002).

    They come front by front, within one the least crowded first, and rows that are not finite last, in their order.
    """
    from pymoo.operators.survival.rank_and_crowding.metrics import get_crowding_function
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    at, finite_PM = _finite(point_PM)
    crowding, kept = get_crowding_function("cd"), []
    for rank in NonDominatedSorting().do(finite_PM, n_stop_if_ranked=count):
        crowded = crowding.do(finite_PM[rank], n_remove=0)
        kept += list(at[rank[np.argsort(-crowded, kind="stable")]])
    others = np.setdiff1d(np.arange(len(point_PM)), at)
    return np.array([*kept, *others][:count], dtype=np.int64)


def balanced(point_PM: np.ndarray) -> np.ndarray:
    """Return the positions of the rows of a front, the best compromise first.

    A compromise is as good as its worst objective: the distance from the best value, as a share of the range over the
    front.
    """
    point_PM = np.asarray(point_PM, dtype=np.float64)
    low_M, range_M = point_PM.min(axis=0), np.ptp(point_PM, axis=0)
    share_PM = (point_PM - low_M) / np.where(range_M > 0, range_M, 1)
    return np.lexsort((share_PM.sum(axis=1), share_PM.max(axis=1)))


def hypervolume(point_PM: np.ndarray, corner_M: np.ndarray) -> float:
    """Return the volume that the rows dominate up to a corner, the worst value of each objective."""
    from pymoo.indicators.hv import HV

    _, point_PM = _finite(point_PM)
    return float(HV(ref_point=np.asarray(corner_M, dtype=np.float64)).do(point_PM)) if len(point_PM) else 0.0
