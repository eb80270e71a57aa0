"""The networks that the page names: what is known of each, in words."""

import json
from collections.abc import Mapping

import pandas as pd

from libranas.report.comparison import ROLES
from libranas.search.registry import STRATEGIES

#: Most networks on the page, so that it stays small; the files of the run hold all.
LISTED = 400
#: Column to what it is called; those that no network has are left out.
ACCURACIES = {
    "accuracy": "benchmark accuracy",
    "short": "search accuracy",
    "long": "accuracy trained long",
    "expected": "expected accuracy",
    "test": "mean test accuracy",
}
#: Genes of vision transformers to their usual names.
GENES = {"embed_dim": "width", "base_dim": "width of a head", "num_heads": "heads", "mlp_ratio": "MLP ratio"}


def in_words(architecture: str) -> str:
    """Describe an architecture (canonical JSON) in words: ``depth 2, width 16, MLP ratio 2 4, heads 2 each``."""
    genes = json.loads(architecture)
    genes.pop("family")
    return ", ".join(f"{GENES.get(name, name.replace('_', ' '))} {_of_gene(value)}" for name, value in genes.items())


def _of_gene(value) -> str:
    if isinstance(value, list) and len(value) > 1 and all(v == value[0] for v in value):
        return f"{_plain(value[0])} each"
    return _plain(value)


def _plain(value) -> str:
    if isinstance(value, list):
        return " ".join(f"({_plain(v)})" if isinstance(v, list) else _plain(v) for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def brief(value: float) -> str:
    """Return a number of any size with four digits or more."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def networks(
    archs: pd.DataFrame,
    accuracy: pd.Series,
    scores: pd.Series,
    histories: Mapping[str, pd.DataFrame],
    selected: Mapping[str, dict],
    tested: Mapping[str, dict],
    in_table: bool,
) -> pd.DataFrame:
    """Return what is known of each network: one row each, by id, the most interesting first.

    Parameters
    ----------
    archs : sample, with columns ``id, params, macs, architecture``
    accuracy : of labelled networks, by id, in the unit of the table where `in_table`, else in [0, 1]
    scores : score of one proxy for the sample, by id; the series has the proxy's name
    histories : strategy to its history
    selected : role to a network; ``id``, ``params``, ``macs``, ``architecture``
    tested : role to a summary of its trainings; {} without

    Returns
    -------
    ``architecture`` (in words), ``found`` (where it comes from), ``params``, ``macs``, ``score``, ``fitness``, those of
    :data:`ACCURACIES`, ``text`` (all that, a value a line) and ``row`` (its place on the page); those of the first
    :data:`LISTED` are on the page, the others have neither text nor row
    """
    wanted = ["id", "architecture", "found", "params", "macs", "score", "fitness", *ACCURACIES]
    parts = [archs.assign(score=archs["id"].map(scores), found="sample")]
    parts += _searched(histories, f"score_{scores.name}") + _selected(selected, tested)
    table = pd.concat([part.reindex(columns=wanted).dropna(axis=1, how="all") for part in parts])
    groups = table.reindex(columns=wanted).groupby("id", sort=False)
    joined = groups.first().assign(found=groups["found"].agg(lambda found: ", ".join(dict.fromkeys(found))))
    joined["accuracy"] = accuracy.reindex(joined.index)
    order = joined.assign(
        chosen=joined.index.isin([entry["id"] for entry in selected.values()]),
        labelled=joined[["accuracy", "short"]].notna().any(axis=1),
        rank=joined["expected"].fillna(joined["fitness"]),
    ).sort_values(["chosen", "labelled", "rank", "accuracy"], ascending=False, kind="stable")
    joined = joined.loc[order.index]
    shown = joined.head(LISTED).copy()
    shown["architecture"] = shown["architecture"].map(in_words)
    shown["text"] = [_text(network, scores.name, in_table) for _, network in shown.iterrows()]
    shown["row"] = "network-" + shown.index
    return pd.concat([shown, joined.iloc[LISTED:].assign(row="")]) if len(joined) > LISTED else shown


def _searched(histories: Mapping[str, pd.DataFrame], score: str) -> list[pd.DataFrame]:
    """Return the networks of each search; the column `score` has the score."""
    parts = []
    for name, history in histories.items():
        own = history.rename(columns={score: "score", "accuracy": "short", "long_accuracy": "long"})
        if STRATEGIES[name].trains:
            found = [f"round {number + 1}" for number in own["round"]]
            parts.append(own.rename(columns={"fitness": "expected"}).assign(found=found))
        elif not STRATEGIES[name].own_fitness:  # else its numbers are no fitness, and what it found is selected
            parts.append(own.assign(found=name))
    return parts


def _selected(selected: Mapping[str, dict], tested: Mapping[str, dict]) -> list[pd.DataFrame]:
    """Return each selected network, with its test accuracy if it was trained."""
    tests = {role: summary["test_accuracy"]["mean"] for role, summary in tested.items()}
    return [pd.DataFrame([{**e, "found": ROLES[r].short, "test": tests.get(r)}]) for r, e in selected.items()]


def _text(network: pd.Series, proxy: str, in_table: bool) -> str:
    """Say all that is known of a network, a value a line."""
    lines = [f"{network.name} ({network['found']})", network["architecture"]]
    lines.append(f"{int(network['params']):,} parameters, {int(network['macs']):,} MACs")
    lines += [f"{proxy} {brief(network['score'])}"] * pd.notna(network["score"])
    lines += [f"fitness {network['fitness']:.3f}"] * pd.notna(network["fitness"])
    for column, title in ACCURACIES.items():
        if pd.notna(network[column]):
            raw = in_table and column == "accuracy"
            lines.append(f"{title} " + (brief(network[column]) if raw else f"{100 * network[column]:.2f} %"))
    return "\n".join(lines)
