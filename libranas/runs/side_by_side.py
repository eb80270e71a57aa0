"""Set runs side by side: what they have in common, and where they differ. Nothing is computed anew in a run.

Runs may be unfinished, or of another version: what a run has is shown, what it lacks is named.
"""

import html
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from libranas.core.errors import LibranasError
from libranas.core.files import read_json
from libranas.core.stats import spearman, spearman_interval, welch
from libranas.labels.table import read_accuracies
from libranas.report.comparison import ROLES
from libranas.report.cost import costs
from libranas.runs.files import FILES
from libranas.runs.folder import RunFolder

#: What is read of a run: name to file of :data:`FILES`.
READ = ("manifest", "table", "choice", "selected", "summary")
#: Keys of the configuration that say where a run is, not what it does.
PLACE = ("run", "results")
#: Fewest architectures that two runs must share for a correlation.
SHARED = 3


class Run:
    """What there is of a run.

    Attributes
    ----------
    found : name in :data:`READ` to content: a dict, or a DataFrame by id
    config : the configuration; None where neither the run nor its report says it
    accuracy : trainings of the stage benchmark, columns ``id, accuracy``; or None
    lacking : what cannot be shown, with the reason where it is not plain absence
    """

    def __init__(self, path: Path, name: str):
        self.path, self.name, self.lacking = path, name, []
        folder = RunFolder(path, {})
        self.config = _first([self._json(folder.state("config.json")), _reported_config(folder.path("report"))])
        if self.config is None:
            self.lacking.append("settings")
        self.found = {}
        for kind in READ:
            file = folder.path(kind)
            value = self._read(file, _scores) if file.suffix == ".csv" else self._json(file)
            self.found[kind] = value
            if value is None:
                self.lacking.append(FILES[kind])
        method = (self.config or {}).get("benchmark", {}).get("method")
        files = [folder.path("accuracy", method=m) for m in ([method] if method else ("train", "supernet", "table"))]
        self.accuracy = _first([self._read(file, _trainings) for file in files])
        if self.accuracy is None:
            self.lacking.append(FILES["accuracy"].format(method=method or "METHOD"))
        self.work = self._read(path / "times", lambda times: list(costs(times))) or []
        if not self.work:
            self.lacking.append("times")

    def _read(self, file: Path, read: Callable):
        """Return what `read` makes of a file; None where it is absent or damaged, and the latter is noted."""
        try:
            return read(file) if file.exists() else None
        except (ValueError, OSError, KeyError, LibranasError) as error:
            self.lacking.append(f"{file.relative_to(self.path)} (cannot be read: {str(error).splitlines()[0]})")
            return None

    def _json(self, file: Path) -> dict | None:
        return self._read(file, _mapping)

    @property
    def labels(self) -> pd.Series | None:
        """Mean accuracy of each labelled architecture, by id."""
        return None if self.accuracy is None else self.accuracy.groupby("id")["accuracy"].mean()

    @property
    def images(self) -> str | None:
        return self.found["manifest"] and self.found["manifest"].get("content_sha256")


def _mapping(file: Path) -> dict:
    if isinstance(content := read_json(file), dict):
        return content
    raise ValueError("it is not a mapping")


def _scores(file: Path) -> pd.DataFrame:
    return pd.read_csv(file, dtype={"id": str}).set_index("id").astype(float)


def _trainings(file: Path) -> pd.DataFrame:
    return read_accuracies(file)[["id", "accuracy"]].astype({"accuracy": float})


def _first(values: Sequence):
    return next((value for value in values if value is not None), None)


def _reported_config(report: Path) -> dict | None:
    """Return the configuration that a report shows: the last of its texts that is one."""
    if not report.exists():
        return None
    for text in reversed(re.findall(r"<pre[^>]*>\s*(\{.*?)</pre>", report.read_text(encoding="utf-8"), re.DOTALL)):
        with suppress(ValueError):
            config = json.loads(html.unescape(text))
            if {"space", "seed"} <= set(config):
                return config
    return None


def read_runs(paths: Sequence[str | Path]) -> list[Run]:
    """Read the folders of at least two runs.

    Raises
    ------
    LibranasError
        If there are fewer, one is named twice, or a folder has no file of a run.
    """
    folders = [Path(path).resolve() for path in paths]
    if len(folders) < 2:
        raise LibranasError("There is one run only.", "Name two or more folders of runs, such as results/digits.")
    for path, folder in zip(paths, folders, strict=True):
        if folders.count(folder) > 1:
            raise LibranasError(f"{path} is named twice.", "Name each run once.")
        if not (folder / FILES["archs"]).exists() and not (folder / FILES["manifest"]).exists():
            raise LibranasError(f"{path} is not the folder of a run.", "Name one such as results/digits.")
    last = 1  # parts of the path that tell all runs apart
    while len({folder.parts[-last:] for folder in folders}) < len(folders):
        last += 1
    return [Run(folder, "/".join(folder.parts[-last:]).lstrip("/")) for folder in folders]


def tables(runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """Compare runs.

    Returns
    -------
    dict of DataFrames; the accuracies are in [0, 1], or as in the table that they come from:

    * ``runs``: version and what is lacking
    * ``settings``: the keys that differ, a column a run
    * ``scores``: Spearman of each proxy between two runs, on the `n` architectures that both scored
    * ``labels``: networks, trainings and accuracies of each run
    * ``labels_between``: Spearman of the labels of two runs with its 95 % interval
    * ``combiners``: what the stage libra chose, and its Spearman on held-out architectures
    * ``networks``: the selected networks, and their test accuracies with 95 % intervals over the seeds
    * ``winners_between``: difference of the winners' test accuracies with its 95 % interval, Welch
    * ``costs``: minutes by kind of work, a column a run
    """
    pairs = list(combinations(runs, 2))
    return {
        "runs": pd.DataFrame([_about(run) for run in runs]),
        "settings": settings_that_differ(runs),
        "scores": pd.DataFrame([row for pair in pairs for row in _scores_between(*pair)], columns=_SCORES),
        "labels": pd.DataFrame([_labels(run) for run in runs if run.labels is not None], columns=_LABELS),
        "labels_between": pd.DataFrame([row for p in pairs for row in _labels_between(*p)], columns=_LABELS_BETWEEN),
        "combiners": pd.DataFrame([_combiner(run) for run in runs if run.found["choice"]], columns=_COMBINERS),
        "networks": pd.DataFrame([row for run in runs for row in _networks(run)], columns=_NETWORKS),
        "winners_between": pd.DataFrame([row for p in pairs for row in _winners_between(*p)], columns=_WINNERS),
        "costs": _costs(runs),
    }


_PAIR = ["run", "other_run"]
_SCORES = ["proxy", *_PAIR, "n", "spearman"]
_LABELS = ["run", "method", "networks", "trainings", "mean", "best"]
_LABELS_BETWEEN = [*_PAIR, "n", "spearman", "low", "high"]
_COMBINERS = ["run", "proxies", "combiner", "labels", "spearman", "low", "high"]
_NETWORKS = ["run", "role", "id", "params", "macs", "seeds", "accuracy", "low", "high", "architecture"]
_WINNERS = [*_PAIR, "same_network", "difference", "low", "high", "p"]


def _about(run: Run) -> dict:
    facts = (run.found["summary"] or {}).get("facts") or {}
    about = {"run": run.name, "folder": str(run.path), "libranas": facts.get("libranas", "unknown")}
    about |= {"commit": (facts.get("commit") or "unknown")[:12], "images": (run.images or "unknown")[:12]}
    return about | {"lacking": "; ".join(run.lacking) or "nothing"}


def _flat(settings: dict, above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", json.dumps(value)


def settings_that_differ(runs: Sequence[Run]) -> pd.DataFrame:
    """Return a row for each key whose values differ among the runs whose settings are known; a column a run."""
    known = {run.name: dict(_flat(run.config)) for run in runs if run.config is not None}
    keys = dict.fromkeys(key for settings in known.values() for key in settings if key not in PLACE)
    rows = [{"setting": key} | {name: settings.get(key, "(none)") for name, settings in known.items()} for key in keys]
    return pd.DataFrame([row for row in rows if len(set(list(row.values())[1:])) > 1], columns=["setting", *known])


def _scores_between(a: Run, b: Run) -> Iterator[tuple]:
    first, second = a.found["table"], b.found["table"]
    if first is None or second is None:
        return
    ids = first.index.intersection(second.index)
    for proxy in (name for name in first if name in second and name not in ("params", "macs")):
        x, y = first.loc[ids, proxy], second.loc[ids, proxy]
        yield proxy, a.name, b.name, len(ids), spearman(x, y) if len(ids) >= SHARED else np.nan


def _labels(run: Run) -> tuple:
    method = ((run.config or {}).get("benchmark") or {}).get("method", "unknown")
    return run.name, method, len(run.labels), len(run.accuracy), run.labels.mean(), run.labels.max()


def _labels_between(a: Run, b: Run) -> Iterator[tuple]:
    if a.labels is None or b.labels is None:
        return
    ids = a.labels.index.intersection(b.labels.index)
    pair, rho = (a.labels[ids], b.labels[ids]), (np.nan, np.nan, np.nan)
    if len(ids) >= SHARED:
        rho = spearman(*pair), *spearman_interval(*pair, seed=0)
    yield a.name, b.name, len(ids), *rho


def _combiner(run: Run) -> tuple:
    choice = run.found["choice"]
    combiner = choice.get("combiner") or {}
    judged = combiner.get("held_out") or {}
    chosen = ", ".join(choice.get("proxies") or [])
    rho = [judged.get(name, np.nan) for name in ("spearman", "low", "high")]
    return run.name, chosen, combiner.get("name", "unknown"), choice.get("n"), *rho


def _networks(run: Run) -> Iterator[tuple]:
    trained = (run.found["summary"] or {}).get("roles") or {}
    for role, entry in (trained or run.found["selected"] or {}).items():
        accuracy = entry.get("test_accuracy") or {}
        known = [accuracy.get(name) for name in ("mean", "low", "high")]
        reached = [np.nan if value is None else value for value in known]  # JSON has null for NaN
        title = ROLES[role].short if role in ROLES else role
        sizes = [entry.get(name) for name in ("params", "macs", "seeds")]
        yield run.name, title, entry.get("id"), *sizes, *reached, entry.get("architecture")


def _winners_between(a: Run, b: Run) -> Iterator[tuple]:
    winners = [((run.found["summary"] or {}).get("roles") or {}).get("winner") or {} for run in (a, b)]
    values = [(winner.get("test_accuracy") or {}).get("values") for winner in winners]
    if not all(values) or a.images is None or a.images != b.images:
        return
    judged = welch(*values) if min(map(len, values)) > 1 else (np.mean(values[0]) - np.mean(values[1]), *[np.nan] * 3)
    yield a.name, b.name, "yes" if winners[0]["id"] == winners[1]["id"] else "no", *judged


def _costs(runs: Sequence[Run]) -> pd.DataFrame:
    minutes = {run.name: {work["work"]: work["minutes"] for work in run.work} for run in runs if run.work}
    kinds = dict.fromkeys(work for known in minutes.values() for work in known)
    rows = [{"work": work} | {name: known.get(work, np.nan) for name, known in minutes.items()} for work in kinds]
    return pd.DataFrame(rows, columns=["work", *minutes])
