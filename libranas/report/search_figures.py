"""The figures of searches, and the pictures of the networks that were selected."""

import json
from collections.abc import Callable

import pandas as pd

from libranas.report.comparison import ROLES
from libranas.report.drawing import AXIS, BLUE, GREY, GRID, ORANGE, RED, figure, legend, points, speaking
from libranas.report.figures import said
from libranas.search.registry import STRATEGIES
from libranas.spaces.autoformer import NETWORK_GENES

#: The line of the best so far.
BEST = {"linewidth": 2, "drawstyle": "steps-post"}


def guided_figure(axes, history: pd.DataFrame, random: pd.Series, networks: pd.DataFrame) -> None:
    """Accuracy of each network that the search trained, in order, beside random ones."""
    searched = history.set_index("id")["accuracy"]
    for name, accuracy, colour in (("random", random, ORANGE), ("guided search", searched, BLUE)):
        number = range(1, len(accuracy) + 1)
        axes.plot(number, 100 * accuracy.cummax(), label=f"{name}: best so far", **BEST | {"color": colour})
        points(axes, number, 100 * accuracy, *said(networks, accuracy.index), color=colour, alpha=0.7, s=22)
    for number, first in history.groupby("round")["evaluation"].min().items():
        if number:
            axes.axvline(first - 0.5, color=GREY, linewidth=0.8, linestyle=":")
        place = {"xycoords": ("data", "axes fraction"), "xytext": (4, 3), "textcoords": "offset points"}
        axes.annotate(f"round {number + 1}", (first - 0.5, 0), color=GREY, **place)
    axes.set_xlabel("short trainings")
    axes.set_ylabel("validation accuracy, %")
    axes.grid()
    legend(axes)


def trajectories_figure(axes, histories: dict[str, pd.DataFrame], networks: pd.DataFrame) -> None:
    compared = {name: table for name, table in histories.items() if not STRATEGIES[name].own_fitness}
    fitness = pd.concat([table["fitness"] for table in compared.values()])
    fitness = fitness[fitness > float("-inf")]
    low, best = fitness.quantile(0.1), fitness.max()  # what is worse is not shown: it would press the rest together
    for name, table in compared.items():
        colour, good = STRATEGIES[name].colour, table[table["fitness"] >= low]
        axes.plot(table["evaluation"], table["best"], label=f"{name}: best so far", **BEST | {"color": colour})
        look = {"color": colour, "alpha": 0.35, "s": 40 if len(table) == 1 else 8}
        points(axes, good["evaluation"], good["fitness"], *said(networks, good["id"]), **look)
    axes.set_ylim(low - 0.02 * (best - low), best + 0.05 * (best - low))
    _of_fitness(axes, "evaluations")


def evaluated_figure(axes, histories: dict[str, pd.DataFrame], selected: dict, networks: pd.DataFrame) -> None:
    method, winner = next(iter(histories)), selected["winner"]["id"]
    for name in [n for n in ("random", method) if n in histories]:
        table, strategy = histories[name], STRATEGIES[name]
        if not strategy.own_fitness:
            table = table[table["fitness"] > float("-inf")]
            look = {"color": strategy.colour, "alpha": 0.5, "s": 18, "label": name}
            points(axes, table["params"] / 1e3, table["fitness"], *said(networks, table["id"]), **look)
    if not STRATEGIES[method].own_fitness:
        found = histories[method].set_index("id").loc[[winner]]
        look = {"color": RED, "marker": "*", "s": 180, "label": "winner"}
        points(axes, found["params"] / 1e3, found["fitness"], *said(networks, [winner]), **look)
    _of_fitness(axes, "parameters, thousands")


def _of_fitness(axes, against: str) -> None:
    axes.set_xlabel(against)
    axes.set_ylabel("fitness")
    axes.grid()
    axes.set_axisbelow(True)
    legend(axes)


#: Objective to its axis: title and unit.
AXES = {"params": ("parameters, thousands", 1e3), "macs": ("MACs, millions", 1e6), "latency": ("latency, ms", 1)}


def front_figure(axes, searched: pd.DataFrame, front, objectives: list[str], winner: str, networks) -> None:
    """Fitness against each objective: all that was evaluated, the front, and the winner."""
    page = axes.figure
    axes.remove()
    panels = page.subplots(1, len(objectives), sharey=True, squeeze=False)[0]
    star, rest = searched[searched["id"] == winner], searched[~searched["front"]]
    looks = (
        (rest, {"color": GREY, "alpha": 0.4, "s": 12}),
        (front, {"color": BLUE, "s": 20, "label": "front"}),
        (star, {"color": RED, "marker": "*", "s": 160, "label": "winner"}),
    )
    for panel, name in zip(panels, objectives, strict=True):
        title, unit = AXES[name]
        for part, look in looks:
            points(panel, part[name] / unit, part["fitness"], *said(networks, part["id"]), **look)
        panel.set_xlabel(title)
        panel.grid()
        panel.set_axisbelow(True)
    panels[0].set_ylabel("fitness")
    legend(panels[0])


def drawings(selected: dict[str, dict]) -> dict[str, str]:
    """Pictures of the selected transformers, a role each; other families are shown as text alone."""
    entries = {role: e for role, e in selected.items() if json.loads(e["architecture"])["family"] == "autoformer"}
    return {role: figure(f"Blocks of {ROLES[role].name}", _blocks(entry), 7, 1.5) for role, entry in entries.items()}


def _blocks(entry: dict) -> Callable:
    """Blocks from left to right: heads as squares, the MLP as a bar of its hidden width; genes of the network above.

    A block says its values as a point does.
    """
    genes = json.loads(entry["architecture"])
    network = ", ".join(f"{gene} {genes[gene]}" for gene in NETWORK_GENES if gene in genes)

    def draw(axes):
        from matplotlib.patches import FancyBboxPatch, Rectangle

        widest, most = max(genes["mlp_ratio"]), max(genes["num_heads"])
        size = min(8, 90 / genes["depth"])
        for i, (heads, ratio) in enumerate(zip(genes["num_heads"], genes["mlp_ratio"], strict=True)):
            count = f"{heads} head{'s' * (heads > 1)}"
            text = f"block {i + 1} of {genes['depth']}\nwidth {genes['embed_dim']}, {count}, MLP ratio {ratio:g}"
            look = {"boxstyle": "round,pad=0,rounding_size=0.06", "fc": GRID, "ec": AXIS}
            axes.add_patch(FancyBboxPatch((i + 0.08, 0), 0.84, 1, url=speaking(text), **look))
            step = 0.72 / most
            for h in range(heads):
                axes.add_patch(Rectangle((i + 0.14 + h * step, 0.58), step * 0.8, 0.26, color=BLUE))
            axes.add_patch(Rectangle((i + 0.14, 0.16), 0.72 * ratio / widest, 0.26, color=ORANGE))
            axes.text(i + 0.5, -0.12, f"{count}\nMLP ×{ratio:g}", ha="center", va="top", fontsize=size)
        axes.set_xlim(-0.02, max(6, genes["depth"]) + 0.02)  # a block of a shallow network is no banner
        if network:
            axes.text(0.08, 1.08, network, ha="left", va="bottom", fontsize=8)
        axes.set_ylim(-0.5, 1.35 if network else 1.05)
        axes.axis("off")

    return draw
