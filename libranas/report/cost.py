"""Time of a run by kind of work, from the times that Snakemake keeps of every job."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from libranas.search.registry import STRATEGIES

#: Kind of work to the files of its jobs below ``times``.
WORK = {
    "scores of the sample": "score/*.tsv",
    "short trainings of random networks": "benchmark/train-*.tsv",
    "guided search: scores of new candidates": "search/guided/propose-*.tsv",
    "guided search: short trainings": "search/guided/train-*.tsv",
    "guided search: long trainings": "search/guided/long-*.tsv",
    **{f"{s.title}: scores": f"search/{s.name}.tsv" for s in STRATEGIES.values() if not s.trains},
    "final trainings of winner and controls": "train/*.tsv",
}


def _seconds(times: Path, pattern: str) -> list[float]:
    return [pd.read_csv(path, sep="\t")["s"].sum() for path in sorted(times.glob(pattern))]


def minutes(times: Path, pattern: str) -> float | None:
    """Return the minutes of the jobs whose files match, together; None without any."""
    jobs = _seconds(times, pattern)
    return sum(jobs) / 60 if jobs else None


def costs(times: Path) -> Iterator[dict]:
    """Yield ``work``, whether that is of a ``search``, ``jobs`` and their ``minutes``, where a run has such jobs.

    A job that was killed and went on counts from then on; the start of each process is included. Snakemake's CPU times
    are not used: they are of its last look at a process, half a minute before the end at worst.
    """
    for work, pattern in WORK.items():
        if jobs := _seconds(times, pattern):
            yield {"work": work, "search": pattern.startswith("search/"), "jobs": len(jobs), "minutes": sum(jobs) / 60}
