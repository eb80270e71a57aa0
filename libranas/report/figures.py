"""The figures of scores, combiners and trainings."""

from collections.abc import Sequence

import pandas as pd

from libranas.predictors.registry import COMBINERS
from libranas.report.comparison import ROLES
from libranas.report.drawing import AXIS, BLUE, GREY, RED, legend, points


def combiner_title(name: str) -> str:
    """Return the title of a combiner; its name, if it is not installed any more."""
    return COMBINERS[name].title if name in COMBINERS else name


def _dots(axes, labels, values, lows, highs, colours, texts, rows) -> None:
    """Values with intervals, one a line, the first on top."""
    positions = list(range(len(labels), 0, -1))
    for y, low, high, colour in zip(positions, lows, highs, colours, strict=True):
        if low == low:
            axes.plot([low, high], [y, y], color=colour, linewidth=2, solid_capstyle="round", alpha=0.55)
    points(axes, values, positions, texts, rows, c=colours, s=38)
    axes.set_yticks(positions, labels)
    axes.set_ylim(0.4, len(labels) + 0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def controls_figure(axes, summary: dict, networks: pd.DataFrame) -> None:
    roles = list(summary["roles"])
    results = [summary["roles"][r]["test_accuracy"] for r in roles]
    colours = [ROLES[r].colour for r in roles]
    columns = [[float("nan") if r[k] is None else 100 * r[k] for r in results] for k in ("mean", "low", "high")]
    ids = [summary["roles"][role]["id"] for role in roles]
    rows = list(networks["row"][ids])
    _dots(axes, [ROLES[r].short for r in roles], *columns, colours, list(networks["text"][ids]), rows)
    for y, role, result, row in zip(range(len(roles), 0, -1), roles, results, rows, strict=True):
        values = [100 * v for v in result["values"]]
        texts = [f"{ROLES[role].short}, training {n + 1}\ntest accuracy {v:.2f} %" for n, v in enumerate(values)]
        places = [y - 0.24] * len(values)
        points(axes, values, places, texts, [row] * len(values), color=ROLES[role].colour, marker="|", s=50)
    axes.set_xlabel("test accuracy, % (dot: mean; bar: 95 % t interval; ticks: single trainings)")


def curve_figure(axes, curve: pd.DataFrame, window: dict) -> None:
    x = curve["bin"]
    lo, hi = window["window"]["lo"], window["window"]["hi"]
    axes.axvspan(lo - 0.5, hi + 0.5, color=RED, alpha=0.12, linewidth=0, label="window")
    mean, std = curve["mean"], curve["std"]
    axes.fill_between(x, mean - std, mean + std, color=BLUE, alpha=0.15, linewidth=0)
    axes.plot(x, mean, color=BLUE, label="mean over networks, band: one std")
    edges = [f"{100 * b // len(x)}" for b in [*x, len(x)]]
    texts = [
        f"layers at {edges[i]} to {edges[i + 1]} % of the depth\nmean {mean[i]:.3f}, std {std[i]:.3f}\n{n} networks"
        for i, n in enumerate(curve["n"])
    ]
    points(axes, x, mean, texts, [""] * len(texts), color=BLUE, s=38)
    if window["threshold"] is not None:
        axes.axhline(window["threshold"], color=GREY, linestyle="--", linewidth=1, label="threshold")
    axes.set_xticks(x, edges[:-1])
    axes.set_xlabel("depth of the layer, % of the network (lower edge of the bin)")
    axes.set_ylabel("mean log σ of the gradient")
    legend(axes)


def proxies_figure(axes, table: pd.DataFrame, choice: dict) -> None:
    colours = [BLUE if p in choice["proxies"] else GREY for p in table["proxy"]]
    texts = [
        f"{r.proxy}\n{_interval('Spearman', r)}\nKendall {r.kendall:.3f}"
        + (f"\ngiven #params {r.partial_given_params:.3f}" if pd.notna(r.partial_given_params) else "")
        for r in table.itertuples()
    ]
    rows = ["proxy-" + name for name in table["proxy"]]
    _dots(axes, table["proxy"], table["spearman"], table["low"], table["high"], colours, texts, rows)
    axes.axvline(0, color=AXIS, linewidth=1)
    axes.set_xlabel(f"Spearman with accuracy, n = {table['n'].iloc[0]} (bar: 95 % bootstrap; blue: chosen by LIBRA)")


def methods_figure(axes, table: pd.DataFrame, chosen: str) -> None:
    table = table.dropna(subset="spearman").sort_values("spearman", ascending=False)
    held_out, splits = table["n_evaluation"].iloc[0], table["splits"].iloc[0]
    colours = [RED if m == chosen else GREY for m in table["method"]]
    titles = list(map(combiner_title, table["method"]))
    texts = [
        f"{title}, {r.labels} labels\n{_interval('Spearman', r)}\nKendall {r.kendall:.3f}"
        for title, r in zip(titles, table.itertuples(), strict=True)
    ]
    rows = ["method-" + name for name in table["method"]]
    _dots(axes, titles, table["spearman"], table["low"], table["high"], colours, texts, rows)
    axes.axvline(0, color=AXIS, linewidth=1)
    axes.set_xlabel(f"Spearman on {held_out} held-out architectures (mean and 95 % range of {splits} splits)")


def _interval(name: str, row) -> str:
    return f"{name} {row.spearman:.3f} ({row.low:.3f} to {row.high:.3f})"


def labels_figure(axes, labels: pd.DataFrame, chosen: str) -> None:
    """Mean Spearman over published tables against the number of labels (:func:`libranas.published.paper.by_labels`)."""
    counts = sorted(labels["k"].unique())
    for combiner in COMBINERS.values():
        part = labels[labels["method"] == combiner.name].sort_values("k")
        if len(part) and combiner.shown:
            places = [counts.index(k) for k in part["k"]]
            thick = 2.5 if combiner.name == chosen else 1.2
            (line,) = axes.plot(places, part["spearman"], label=combiner.title, linewidth=thick)
            texts = [
                f"{combiner.title}, {r.k} labels\nmean Spearman {r.spearman:.3f} on {r.tables} tables"
                for r in part.itertuples()
            ]
            points(axes, places, part["spearman"], texts, [""] * len(part), color=line.get_color(), s=20)
    axes.set_xticks(range(len(counts)), [str(k) for k in counts])
    axes.set_xlabel("labelled architectures")
    axes.set_ylabel(f"mean Spearman on {labels['tables'].max()} tables")
    axes.grid()
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)


def size_figure(axes, scores: pd.DataFrame, name: str, accuracy: pd.Series, in_table: bool, networks) -> None:
    """Score of the proxy `name` of each network of the sample against its size."""
    rest, known = scores.drop(accuracy.index, errors="ignore"), scores.loc[accuracy.index]
    colours = accuracy if in_table else 100 * accuracy
    looks = (
        (rest, {"facecolors": "none", "s": 16, "label": "no accuracy"}),
        (known, {"c": colours, "cmap": "viridis", "vmin": colours.min(), "vmax": colours.max(), "s": 32}),
    )
    for part, look in looks:
        place = part["params"] / 1e3, part[name]
        drawn = points(axes, *place, *said(networks, part.index), edgecolors=GREY, linewidths=0.7, **look)
    axes.figure.colorbar(drawn, ax=axes, label="accuracy in the table" if in_table else "benchmark accuracy, %")
    axes.set_xlabel("parameters, thousands")
    axes.set_ylabel(name)
    axes.grid()
    axes.set_axisbelow(True)
    if len(rest):
        legend(axes)


def said(networks: pd.DataFrame, ids: Sequence[str]) -> tuple[list, list]:
    """Return texts and rows of networks for :func:`libranas.report.drawing.points`."""
    found = networks.loc[list(ids)]
    return list(found["text"]), list(found["row"])


def training_figure(axes, curves: pd.DataFrame, rows: dict[str, str]) -> None:
    """Validation accuracy by epoch; `rows` is a role's place on the page."""
    for role, part in curves.groupby("role", sort=False):
        epochs, (_, short, colour) = part.groupby("epoch")["val_accuracy"], ROLES[role]
        mean = 100 * epochs.mean()
        axes.plot(mean.index + 1, mean, color=colour, linewidth=2, label=short)
        for _, single in part.groupby("seed"):
            axes.plot(single["epoch"] + 1, 100 * single["val_accuracy"], color=colour, linewidth=0.7, alpha=0.4)
        every = range(len(mean) - 1, -1, -(1 + len(mean) // 40))  # as many as can be told apart, the last among them
        low, high = 100 * epochs.min(), 100 * epochs.max()
        texts = [
            f"{short}, epoch {mean.index[i] + 1}\nvalidation accuracy {mean.iloc[i]:.2f} %"
            f" ({low.iloc[i]:.2f} to {high.iloc[i]:.2f})"
            for i in every
        ]
        points(axes, mean.index[every] + 1, mean.iloc[every], texts, [rows[role]] * len(texts), color=colour, s=12)
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation accuracy, %")
    axes.grid()
    legend(axes)
