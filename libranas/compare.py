"""Things put side by side: the winner and its controls over the seeds; two sources of accuracies."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from libranas.provenance import stream_seed
from libranas.stats import bootstrap_interval, kendall, mean_interval, spearman, welch

#: What a role is called in sentences.
NAMES = {
    "winner": "the network that the search found",
    "random": "a random network of equal size",
    "params_max": "the largest network of the budget",
    "reference": "the reference network",
}


def compare_runs(runs: Sequence[dict], selected: dict[str, dict]) -> dict:
    """Summarise trainings by role.

    Parameters
    ----------
    runs : metrics of :func:`libranas.training.workflow.train_and_test` with ``role`` and ``seed``
    selected : see :func:`libranas.search.select`

    Returns
    -------
    dict with ``roles`` (a role to mean test accuracy, 95 % t interval over the seeds, all values, and
    ``best_seed`` by validation accuracy), ``differences`` (control to winner minus control, Welch interval and p)
    and ``verdict``, one sentence a control. JSON-ready; accuracies in [0, 1].
    """
    by_role: dict[str, list[dict]] = {}
    for run in sorted(runs, key=lambda r: r["seed"]):
        by_role.setdefault(run["role"], []).append(run)
    roles = {}
    for role, members in by_role.items():
        values = [r["test_accuracy"] for r in members]
        mean, low, high = mean_interval(values)
        if len(set(values)) == 1:  # equal by the coarseness of a count of images, not by certainty
            low = high = float("nan")
        roles[role] = {
            "name": NAMES[role],
            **selected[role],
            "test_accuracy": {"mean": mean, "low": low, "high": high, "values": values},
            "val_accuracy": [r["val_accuracy"] for r in members],
            "best_seed": max(members, key=lambda r: (r["val_accuracy"], -r["seed"]))["seed"],
            "seeds": len(members),
            "test_images": members[0]["test_images"],
        }
    differences, sentences = {}, []
    ours = roles["winner"]["test_accuracy"]["values"]
    for role in by_role:
        if role == "winner":
            continue
        if selected[role].get("same_as") == "winner":
            sentences.append(f"{NAMES[role].capitalize()} is the winner itself.")
            continue
        difference, low, high, p = welch(ours, roles[role]["test_accuracy"]["values"])
        differences[role] = {"difference": difference, "low": low, "high": high, "p": p}
        sentences.append(_sentence(NAMES[role], difference, low, high, p))
    return {"roles": roles, "differences": differences, "verdict": " ".join(sentences)}


def scores_of(histories: Sequence[str], network: str) -> dict[str, float]:
    """Scores of a network, by its id, in tables of searches (CSV, columns ``score_PROXY``); {} if none has it."""
    for path in histories:
        table = pd.read_csv(path)
        found = table[table["id"] == network].filter(regex="^score_")
        if len(found) and found.shape[1]:
            return {name.removeprefix("score_"): float(value) for name, value in found.iloc[0].items()}
    return {}


def _sentence(name: str, difference: float, low: float, high: float, p: float) -> str:
    interval = (
        f"{100 * difference:+.2f} points (95 % interval {100 * low:+.2f} to {100 * high:+.2f}, Welch p = {p:.2g})"
    )
    if low != low:
        return f"Against {name}: {100 * difference:+.2f} points; without any spread there is nothing to judge it by."
    if low > 0:
        return f"It beats {name}: {interval}."
    if high < 0:
        return f"It loses to {name}: {interval}."
    return f"Against {name} there is no significant difference: {interval}."


def agreement(one: pd.DataFrame, other: pd.DataFrame, params: pd.Series, seed: int) -> dict:
    """Rank agreement of two sources of accuracies (columns ``id``, ``accuracy``) on the same architectures.

    Returns
    -------
    dict: Spearman with 95 % bootstrap interval, Kendall, n, and each source's Spearman with #params; where the
    first has several seeds, also ``between_seeds``, the Spearman of its first two seeds, and ``noise``, see
    :func:`noise_ceiling`.
    """
    a, b = (table.groupby("id")["accuracy"].mean() for table in (one, other))
    ids = a.index.intersection(b.index)
    a, b, size = a[ids], b[ids], params[ids]
    low, high = bootstrap_interval(spearman, a, b, seed=stream_seed(seed, "agreement"))
    by_seed = one.pivot(index="id", columns="seed", values="accuracy").dropna(axis=1, how="all")
    repeated = by_seed.iloc[:, :2].dropna() if by_seed.shape[1] > 1 else None
    return {
        "n": len(ids),
        "spearman": spearman(a, b),
        "low": low,
        "high": high,
        "kendall": kendall(a, b),
        "first_with_params": spearman(a, size),
        "other_with_params": spearman(b, size),
        "between_seeds": None if repeated is None else spearman(repeated[0], repeated[1]),
        "noise": None if repeated is None else noise_ceiling(one, seed),
    }


def noise_ceiling(table: pd.DataFrame, seed: int) -> dict:
    """How well any predictor could rank architectures by the accuracy of one training, given the noise of its seed.

    An accuracy is taken as that of the architecture plus independent normal noise of one size. With reliability
    r = 1 - noise variance / variance over architectures, a predictor of the architecture's own accuracy has the
    correlation sqrt(r) with that of one training (Spearman 1904), and the rank correlation 6/pi asin(sqrt(r) / 2).

    Parameters
    ----------
    table : ``id``, ``seed``, ``accuracy``; some architectures with several seeds

    Returns
    -------
    dict: ``noise_std`` (within architectures, pooled), ``spread_std`` (over architectures, one training each),
    ``ceiling`` (Spearman) with 95 % bootstrap interval ``low``, ``high`` over architectures, ``architectures``,
    ``repeated`` (those with several seeds) and ``trainings``. Accuracies in the unit of the table.
    """
    groups = table.groupby("id")["accuracy"]
    squares = groups.var(ddof=0).to_numpy() * groups.size().to_numpy()
    extra = groups.size().to_numpy() - 1
    first = table.sort_values("seed").groupby("id")["accuracy"].first().to_numpy()

    def ceiling(first_A, squares_A, extra_A) -> float:
        if not extra_A.any() or np.ptp(first_A) == 0:
            return float("nan")
        reliability = max(0.0, 1 - squares_A.sum() / extra_A.sum() / first_A.var(ddof=1))
        return float(6 / np.pi * np.arcsin(np.sqrt(reliability) / 2))

    low, high = bootstrap_interval(ceiling, first, squares, extra, seed=stream_seed(seed, "noise"))
    return {
        "noise_std": float(np.sqrt(squares.sum() / extra.sum())),
        "spread_std": float(first.std(ddof=1)),
        "ceiling": ceiling(first, squares, extra),
        "low": low,
        "high": high,
        "architectures": len(first),
        "repeated": int((extra > 0).sum()),
        "trainings": len(table),
    }
