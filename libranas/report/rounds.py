"""The rounds of a guided search: what each trained, what it gained and what it cost."""

from pathlib import Path

import pandas as pd

from libranas.report.cost import minutes


def rounds(history: pd.DataFrame, times: Path) -> list[dict]:
    """Return a row a round.

    Parameters
    ----------
    history : of the search, with ``round`` and ``accuracy`` (short training, in [0, 1]; NaN where it failed)
    times : folder with the times of all jobs

    Returns
    -------
    ``number`` (from 1), ``trained``, ``failed``, ``median`` and ``best`` accuracy, ``so_far`` (best of all rounds up to
    this one), ``gained`` (on the best of the rounds before; NaN for the first), and the minutes of its jobs: ``scores``
    (of new candidates, and the choice), ``trainings`` and both, ``minutes``; None where no time was kept
    """
    rows, before = [], float("nan")
    for number, part in history.groupby("round"):
        accuracy = part["accuracy"]
        so_far = pd.Series([before, accuracy.max()]).max()
        scores = minutes(times, f"search/guided/propose-{number}.tsv")
        trainings = minutes(times, f"search/guided/train-{number}-*.tsv")
        rows.append(
            {
                "number": int(number) + 1,
                "trained": len(part),
                "failed": int(accuracy.isna().sum()),
                "median": accuracy.median(),
                "best": accuracy.max(),
                "so_far": so_far,
                "gained": so_far - before,
                "scores": scores,
                "trainings": trainings,
                "minutes": None if scores is None or trainings is None else scores + trainings,
            }
        )
        before = so_far
    return rows
