"""The figures of the report."""

import json
from collections.abc import Callable

import pandas as pd

from libranas.predictors.registry import COMBINERS
from libranas.report.comparison import ROLES
from libranas.report.drawing import BLUE, GREY, ORANGE, RED, figure
from libranas.search.registry import STRATEGIES
from libranas.spaces.autoformer import NETWORK_GENES


def combiner_title(name: str) -> str:
    """Return the title of a combiner; its name, if it is not installed any more."""
    return COMBINERS[name].title if name in COMBINERS else name


def _dots(axes, labels, values, lows, highs, colours) -> None:
    """Values with intervals, one a line, the first on top."""
    positions = range(len(labels), 0, -1)
    for y, value, low, high, colour in zip(positions, values, lows, highs, colours, strict=True):
        if low == low:
            axes.plot([low, high], [y, y], color=colour, linewidth=2, solid_capstyle="round", alpha=0.55)
        axes.plot(value, y, "o", color=colour, markersize=6)
    axes.set_yticks(list(positions), labels)
    axes.set_ylim(0.4, len(labels) + 0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def controls_figure(axes, summary: dict) -> None:
    roles = list(summary["roles"])
    results = [summary["roles"][r]["test_accuracy"] for r in roles]
    colours = [ROLES[r].colour for r in roles]
    columns = [[float("nan") if r[k] is None else 100 * r[k] for r in results] for k in ("mean", "low", "high")]
    _dots(axes, [ROLES[r].short for r in roles], *columns, colours)
    for y, result, colour in zip(range(len(roles), 0, -1), results, colours, strict=True):
        values = [100 * v for v in result["values"]]
        axes.plot(values, [y - 0.22] * len(values), "|", color=colour, markersize=7)
    axes.set_xlabel("test accuracy, % (dot: mean; bar: 95 % t interval; ticks: single trainings)")


def curve_figure(axes, curve: pd.DataFrame, window: dict) -> None:
    x = curve["bin"]
    lo, hi = window["window"]["lo"], window["window"]["hi"]
    axes.axvspan(lo - 0.5, hi + 0.5, color=RED, alpha=0.12, linewidth=0, label="window")
    mean, std = curve["mean"], curve["std"]
    axes.fill_between(x, mean - std, mean + std, color=BLUE, alpha=0.15, linewidth=0)
    axes.plot(x, mean, "o-", color=BLUE, label="mean over networks, band: one std")
    if window["threshold"] is not None:
        axes.axhline(window["threshold"], color=GREY, linestyle="--", linewidth=1, label="threshold")
    axes.set_xticks(x, [f"{100 * b // len(x)}" for b in x])
    axes.set_xlabel("depth of the layer, % of the network (lower edge of the bin)")
    axes.set_ylabel("mean log σ of the gradient")
    axes.legend(loc="best")


def proxies_figure(axes, table: pd.DataFrame, choice: dict) -> None:
    colours = [BLUE if p in choice["proxies"] else GREY for p in table["proxy"]]
    _dots(axes, table["proxy"], table["spearman"], table["low"], table["high"], colours)
    axes.axvline(0, color="#9aa1a8", linewidth=1)
    axes.set_xlabel(f"Spearman with accuracy, n = {table['n'].iloc[0]} (bar: 95 % bootstrap; blue: chosen by LIBRA)")


def methods_figure(axes, table: pd.DataFrame, chosen: str) -> None:
    held_out, splits = table["n_evaluation"].iloc[0], table["splits"].iloc[0]
    table = table.dropna(subset="spearman").sort_values("spearman", ascending=False)
    colours = [RED if m == chosen else GREY for m in table["method"]]
    _dots(axes, list(map(combiner_title, table["method"])), table["spearman"], table["low"], table["high"], colours)
    axes.axvline(0, color="#9aa1a8", linewidth=1)
    axes.set_xlabel(f"Spearman on {held_out} held-out architectures (mean and 95 % range of {splits} splits)")


def labels_figure(axes, labels: pd.DataFrame, chosen: str) -> None:
    """Mean Spearman over published tables against the number of labels (:func:`libranas.published.paper.by_labels`)."""
    counts = sorted(labels["k"].unique())
    for combiner in COMBINERS.values():
        part = labels[labels["method"] == combiner.name].sort_values("k")
        if len(part) and combiner.shown:
            places = [counts.index(k) for k in part["k"]]
            style = {"linewidth": 2.5 if combiner.name == chosen else 1.2, "marker": "o", "markersize": 4}
            axes.plot(places, part["spearman"], label=combiner.title, **style)
    axes.set_xticks(range(len(counts)), [str(k) for k in counts])
    axes.set_xlabel("labelled architectures")
    axes.set_ylabel(f"mean Spearman on {labels['tables'].max()} tables")
    axes.grid()
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)


def size_figure(axes, scores: pd.DataFrame, accuracy: pd.Series, choice: dict, in_table: bool) -> None:
    name = choice["z1"]
    rest = scores.drop(accuracy.index, errors="ignore")
    axes.scatter(rest["params"] / 1e3, rest[name], s=14, facecolors="none", edgecolors="#b9bfc5", label="no accuracy")
    known = scores.loc[accuracy.index]
    points = axes.scatter(
        known["params"] / 1e3, known[name], s=26, c=accuracy if in_table else 100 * accuracy, cmap="viridis"
    )
    axes.figure.colorbar(points, ax=axes, label="accuracy in the table" if in_table else "benchmark accuracy, %")
    axes.set_xlabel("parameters, thousands")
    axes.set_ylabel(f"{name} (z1)")
    axes.grid()
    axes.set_axisbelow(True)
    axes.legend(loc="best")


def guided_figure(axes, history: pd.DataFrame, random: pd.Series) -> None:
    """Accuracy of each network that the search trained, in order, beside random ones."""
    for name, accuracy, colour in (("guided search", history["accuracy"], BLUE), ("random", random, ORANGE)):
        number = range(1, len(accuracy) + 1)
        axes.plot(number, 100 * accuracy, ".", color=colour, alpha=0.5, markersize=5)
        axes.plot(number, 100 * accuracy.cummax(), color=colour, linewidth=2, label=f"{name}: best so far")
    for first in history.groupby("round")["evaluation"].min()[1:]:
        axes.axvline(first - 0.5, color=GREY, linewidth=0.5, linestyle=":")
    axes.set_xlabel("short trainings (dotted: the surrogate was fitted again)")
    axes.set_ylabel("validation accuracy, %")
    axes.grid()
    axes.legend(loc="lower right")


def trajectories_figure(axes, histories: dict[str, pd.DataFrame]) -> None:
    compared = [name for name in histories if not STRATEGIES[name].own_fitness]
    for name in compared:
        table, colour = histories[name], STRATEGIES[name].colour
        mark = "o" if len(table) == 1 else None
        best = {"color": colour, "linewidth": 2, "marker": mark, "label": f"{name}: best so far"}
        axes.plot(table["evaluation"], table["best"], **best)
        axes.plot(table["evaluation"], table["fitness"], ".", color=colour, alpha=0.25, markersize=3)
    finite = pd.concat([histories[n]["fitness"] for n in compared])
    finite = finite[finite > float("-inf")]
    axes.set_ylim(finite.quantile(0.1), finite.max() + 0.05 * (finite.max() - finite.quantile(0.1)))
    _of_fitness(axes, "evaluations")


def evaluated_figure(axes, histories: dict[str, pd.DataFrame], selected: dict) -> None:
    method = next(iter(histories))
    for name in [n for n in ("random", method) if n in histories]:
        table, strategy = histories[name], STRATEGIES[name]
        if not strategy.own_fitness:
            look = {"color": strategy.colour, "alpha": 0.4, "markersize": 5, "label": name}
            axes.plot(table["params"] / 1e3, table["fitness"], ".", **look)
    if not STRATEGIES[method].own_fitness:
        winner = histories[method].set_index("id")["fitness"][selected["winner"]["id"]]
        place = selected["winner"]["params"] / 1e3, winner
        axes.plot(*place, "*", color=RED, markersize=14, label="winner")
    _of_fitness(axes, "parameters, thousands")


def _of_fitness(axes, against: str) -> None:
    axes.set_xlabel(against)
    axes.set_ylabel("fitness")
    axes.grid()
    axes.legend(loc="lower right")


#: Objective to its axis: title and unit.
AXES = {"params": ("parameters, thousands", 1e3), "macs": ("MACs, millions", 1e6), "latency": ("latency, ms", 1)}


def front_figure(axes, searched: pd.DataFrame, front: pd.DataFrame, objectives: list[str], winner: str) -> None:
    """Fitness against each objective: all that was evaluated, the front, and the winner."""
    page = axes.figure
    axes.remove()
    panels = page.subplots(1, len(objectives), sharey=True, squeeze=False)[0]
    star = searched[searched["id"] == winner]
    for panel, name in zip(panels, objectives, strict=True):
        title, unit = AXES[name]
        panel.plot(searched[name] / unit, searched["fitness"], ".", color=GREY, alpha=0.3, markersize=4)
        panel.plot(front[name] / unit, front["fitness"], "o", color=BLUE, markersize=4, label="front")
        panel.plot(star[name] / unit, star["fitness"], "*", color=RED, markersize=13, label="winner")
        panel.set_xlabel(title)
        panel.grid()
    panels[0].set_ylabel("fitness")
    panels[0].legend(loc="lower right")


def training_figure(axes, curves: pd.DataFrame) -> None:
    for role, part in curves.groupby("role", sort=False):
        mean = part.groupby("epoch")["val_accuracy"].mean()
        axes.plot(mean.index + 1, 100 * mean, color=ROLES[role].colour, linewidth=2, label=ROLES[role].short)
        for _, single in part.groupby("seed"):
            axes.plot(
                single["epoch"] + 1, 100 * single["val_accuracy"], color=ROLES[role].colour, linewidth=0.7, alpha=0.4
            )
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation accuracy, %")
    axes.grid()
    axes.legend(loc="lower right")


def drawings(selected: dict[str, dict]) -> dict[str, str]:
    """Pictures of the selected transformers, a role each; other families are shown as text alone."""
    entries = {role: e for role, e in selected.items() if json.loads(e["architecture"])["family"] == "autoformer"}
    return {role: figure(_architecture(entry), 7, 1.5) for role, entry in entries.items()}


def _architecture(entry: dict) -> Callable:
    """Blocks from left to right: heads as squares, the MLP as a bar of its hidden width; genes of the network above."""
    genes = json.loads(entry["architecture"])
    network = ", ".join(f"{gene} {genes[gene]}" for gene in NETWORK_GENES if gene in genes)

    def draw(axes):
        from matplotlib.patches import FancyBboxPatch, Rectangle

        widest, most = max(genes["mlp_ratio"]), max(genes["num_heads"])
        for i, (heads, ratio) in enumerate(zip(genes["num_heads"], genes["mlp_ratio"], strict=True)):
            axes.add_patch(
                FancyBboxPatch(
                    (i + 0.08, 0), 0.84, 1, boxstyle="round,pad=0,rounding_size=0.06", fc="#f1f4f6", ec="#c8ced4"
                )
            )
            step = 0.72 / most
            for h in range(heads):
                axes.add_patch(Rectangle((i + 0.14 + h * step, 0.58), step * 0.8, 0.26, color=BLUE))
            axes.add_patch(Rectangle((i + 0.14, 0.16), 0.72 * ratio / widest, 0.26, color=ORANGE))
            axes.text(i + 0.5, -0.12, f"{heads} heads, MLP ×{ratio:g}", ha="center", va="top", fontsize=8)
        axes.set_xlim(-0.02, genes["depth"] + 0.02)
        if network:
            axes.text(0.08, 1.08, network, ha="left", va="bottom", fontsize=8)
        axes.set_ylim(-0.35, 1.35 if network else 1.05)
        axes.axis("off")

    return draw
