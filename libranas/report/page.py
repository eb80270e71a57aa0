"""The report: one HTML page that opens offline. It shows what the stages computed and computes nothing new.

Figures are inline SVG (matplotlib), the page is a Jinja template (``template.html.j2``).
"""

import json
from pathlib import Path

import jinja2
import pandas as pd

from libranas.core.files import read_json, write_text
from libranas.core.provenance import facts
from libranas.labels.table import mean_accuracies
from libranas.report.comparison import NAMES
from libranas.report.drawing import COLOURS, figure
from libranas.report.figures import (
    METHODS,
    SEARCHES,
    SHORT,
    _controls,
    _drawings,
    _evaluated,
    _front,
    _layer_curve,
    _methods,
    _proxies,
    _score_against_size,
    _training,
    _trajectories,
    labels_figure,
)


def write_report(path: str | Path, files: dict, config: dict, strategies: list[str], command: str) -> None:
    """Write the page to `path`.

    Parameters
    ----------
    files : named inputs of the rule ``report``; without ``selected`` the page has no search in it, without
        ``summary`` no training
    config : the checked configuration
    strategies : names of the search strategies, in the order of ``files["histories"]``
    command : what was run
    """
    selected, summary = (read_json(files[k]) if k in files else None for k in ("selected", "summary"))
    choice, window = read_json(files["choice"]), read_json(files["window"])
    manifest = read_json(files["manifest"])
    histories = dict(zip(strategies, map(pd.read_csv, files["histories"]), strict=True)) if selected else {}
    names = ("archs", "failures", "costs", "curve", "methods", "proxies", "parts")
    tables = {name: pd.read_csv(files[name]) for name in names}
    scores = pd.read_csv(files["table"], index_col="id")
    accuracy = mean_accuracies(files["accuracy"])
    in_table = config["benchmark"]["method"] == "table"  # accuracies in the table's own unit
    figures = {
        "curve": figure(lambda ax: _layer_curve(ax, tables["curve"], window), 7, 3),
        "proxies": figure(lambda ax: _proxies(ax, tables["proxies"], choice), 7, 0.6 + 0.27 * len(tables["proxies"])),
        "methods": figure(lambda ax: _methods(ax, tables["methods"]), 7, 0.6 + 0.3 * len(tables["methods"])),
        "size": figure(lambda ax: _score_against_size(ax, scores, accuracy, choice, in_table), 7, 3.4),
    }
    if selected:
        figures |= {
            "trajectories": figure(lambda ax: _trajectories(ax, histories), 7, 3.2),
            "evaluated": figure(lambda ax: _evaluated(ax, histories, selected), 7, 3.4),
        }
    objectives, front = config["search"]["objectives"] if selected else [], pd.DataFrame()
    if selected and strategies[0] == "nsga2":
        searched = histories["nsga2"]
        front = searched[searched["front"]].sort_values([*objectives, "evaluation"])
        figures["front"] = figure(lambda ax: _front(ax, searched, front, objectives, selected["winner"]["id"]), 7, 3.2)
    published = {n: pd.read_csv(files[n]) for n in ("table1", "table3", "table4", "labels") if n in files}
    if published:
        figures["labels"] = figure(lambda ax: labels_figure(ax, published["labels"]), 7, 3.6)
    if summary:
        curves = pd.read_csv(files["curves"])
        figures |= {
            "controls": figure(lambda ax: _controls(ax, summary), 7, 1.9),
            "training": figure(lambda ax: _training(ax, curves), 7, 3.2),
        }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "count": lambda v: f"{int(v):,}",
        "percent": lambda v: "n/a" if v is None or v != v else f"{100 * v:.2f} %",
        "number": lambda v: "n/a" if v is None or v != v else f"{v:.3f}",
        "scaled": lambda v, factor: "n/a" if v != v else f"{factor * v:,.1f}",
    }
    html = environment.get_template("template.html.j2").render(
        config=config,
        config_json=json.dumps(config, indent=2),
        command=command,
        facts=facts(),
        manifest=manifest,
        selected=selected,
        summary=summary,
        choice=choice,
        window=window,
        figures=figures,
        drawings=_drawings(selected or {}),
        archs=tables["archs"],
        failures=tables["failures"].to_dict("records"),
        methods=tables["methods"].fillna({"lacks": ""}).to_dict("records"),
        proxies=tables["proxies"].to_dict("records"),
        parts=tables["parts"].to_dict("records"),
        costs=worth(tables["proxies"], tables["costs"]).to_dict("records"),
        method=strategies[0] if selected else None,
        front=front.to_dict("records"),
        evaluations={name: t["evaluation"].max() for name, t in histories.items()},
        best={name: t["fitness"].max() for name, t in histories.items()},
        labelled=len(accuracy),
        published={name: table.to_dict("records") for name, table in published.items()},
        names=NAMES,
        short=SHORT,
        method_names=METHODS,
        method_titles=SEARCHES,
        latency=read_json(files["latency"])["held_out"] if files.get("latency") else None,
        colours=COLOURS,
    )
    write_text(path, html)


def worth(proxies: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Each proxy's correlation with accuracy beside the cost of its pass, the best first.

    Parameters
    ----------
    proxies : ``libra/proxies.csv``
    costs : made by :func:`libranas.scores.costs`

    Returns
    -------
    DataFrame with the columns of both and ``others``, how many proxies the pass is shared with
    """
    table = proxies.merge(costs.assign(others=costs["shared"] - 1), on="proxy", validate="one_to_one")
    return table.sort_values("spearman", ascending=False, kind="stable")
