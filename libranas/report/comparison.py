"""The winner beside its controls over the seeds."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from libranas.core.stats import mean_interval, welch
from libranas.report.drawing import BLUE, GREEN, ORANGE, PURPLE, RED


class Role(NamedTuple):
    """A network that is trained, as the report names it."""

    name: str  # in sentences
    short: str  # in tables and figures
    colour: str


ROLES = {
    "winner": Role("the network that the search found", "winner", BLUE),
    "random": Role("a random network of equal size", "random, equal size", ORANGE),
    "params_max": Role("the largest network of the budget", "largest of the budget", GREEN),
    "random_best": Role("the best of the random networks that were trained for a short time", "best random", RED),
    "reference": Role("the reference network", "reference", PURPLE),
}


def compare_runs(runs: Sequence[dict], selected: dict[str, dict]) -> dict:
    """Summarise trainings by role.

    Parameters
    ----------
    runs : metrics of :func:`libranas.training.train_and_test.train_and_test` with ``role`` and ``seed``
    selected : see :func:`libranas.search.selection.select`

    Returns
    -------
    JSON-ready dict, accuracies in [0, 1]: ``roles`` (a role to mean test accuracy, 95 % t interval over the seeds, all
    values, and ``best_seed`` by validation accuracy), ``differences`` (control to winner minus control, Welch interval
    and p) and ``verdict``, one sentence a control
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
            "name": ROLES[role].name,
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
            sentences.append(f"{ROLES[role].name.capitalize()} is the winner itself.")
            continue
        difference, low, high, p = welch(ours, roles[role]["test_accuracy"]["values"])
        differences[role] = {"difference": difference, "low": low, "high": high, "p": p}
        sentences.append(_sentence(ROLES[role].name, difference, low, high, p))
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
