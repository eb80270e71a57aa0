"""The report: one HTML page that opens offline. It shows what the stages computed and computes nothing new."""

import json
from pathlib import Path

import jinja2
import pandas as pd

from libranas.core.files import read_json, write_text
from libranas.core.provenance import facts
from libranas.labels.agreement import between_seeds, noise_ceiling
from libranas.labels.table import mean_accuracies, read_accuracies
from libranas.report import figures as draw
from libranas.report.comparison import ROLES
from libranas.report.cost import costs
from libranas.report.drawing import figure
from libranas.search.registry import STRATEGIES


def write_report(path: str | Path, files: dict, config: dict, strategies: list[str], command: str, times: Path) -> None:
    """Write the page to `path`.

    Parameters
    ----------
    files : named inputs of the rule ``report``; without ``selected`` the page has no search in it, without
        ``summary`` no training
    config : the checked configuration
    strategies : names of the search strategies, in the order of ``files["histories"]``
    command : what was run
    times : folder with the times of all jobs
    """
    content = {"selected": None, "summary": None, "latency": None, "drawings": {}, "published": {}}
    content |= _scored(files, config)
    chosen = content["choice"]["combiner"]["name"]
    if "selected" in files:
        content |= _searched(files, config, strategies, content["accuracy"])
    if "summary" in files:
        content |= _trained(files)
    if "table1" in files:
        content |= _published(files, chosen)
    content |= {"config": config, "config_json": json.dumps(config, indent=2), "command": command}
    content["work"] = list(costs(times))
    template = _environment().get_template("template.html.j2")
    write_text(path, template.render(**content, facts=facts(), roles=ROLES))


def _scored(files: dict, config: dict) -> dict:
    """Return the content about scores and combiners."""
    names = ("archs", "failures", "costs", "curve", "methods", "proxies", "parts")
    tables = {name: pd.read_csv(files[name]) for name in names}
    manifest, choice, window = (read_json(files[name]) for name in ("manifest", "choice", "window"))
    scores, accuracy = pd.read_csv(files["table"], index_col="id"), mean_accuracies(files["accuracy"])
    labels, seed = read_accuracies(files["accuracy"]), config["seed"]
    repeated = labels["id"].duplicated().any()
    in_table = config["benchmark"]["method"] == "table"  # accuracies in the table's own unit
    chosen, proxies, methods = choice["combiner"]["name"], tables["proxies"], tables["methods"]
    return {
        "manifest": manifest,
        "choice": choice,
        "window": window,
        "archs": tables["archs"],
        "accuracy": accuracy,
        "labelled": len(accuracy),
        "noise": {"seeds": between_seeds(labels, seed), **noise_ceiling(labels, seed)} if repeated else None,
        "failures": tables["failures"].to_dict("records"),
        "methods": methods.fillna({"lacks": ""}).to_dict("records"),
        "proxies": proxies.to_dict("records"),
        "parts": tables["parts"].to_dict("records"),
        "costs": worth(proxies, tables["costs"]).to_dict("records"),
        "curve_figure": figure(lambda ax: draw.curve_figure(ax, tables["curve"], window), 7, 3),
        "proxies_figure": figure(lambda ax: draw.proxies_figure(ax, proxies, choice), 7, 0.6 + 0.27 * len(proxies)),
        "methods_figure": figure(lambda ax: draw.methods_figure(ax, methods, chosen), 7, 0.6 + 0.3 * len(methods)),
        "size_figure": figure(lambda ax: draw.size_figure(ax, scores, accuracy, choice, in_table), 7, 3.4),
    }


def _searched(files: dict, config: dict, strategies: list[str], accuracy: pd.Series) -> dict:
    """Return the content about the searches and the networks that they found."""
    selected = read_json(files["selected"])
    histories = dict(zip(strategies, map(pd.read_csv, files["histories"]), strict=True))
    method, objectives = STRATEGIES[strategies[0]], config["search"]["objectives"]
    content = {"front": [], "guided_figure": None}
    if method.trains:
        guided = histories[method.name]
        drawn = pd.read_csv(files["archs"], usecols=["id"], dtype=str)["id"]
        random = accuracy.reindex(drawn[drawn.isin(accuracy.index)])  # in the order of the draw
        content["guided_figure"] = figure(lambda ax: draw.guided_figure(ax, guided, random), 7, 3.4)
        content |= {"rounds": int(guided["round"].max()) + 1, "trained": guided["accuracy"].max()}
        content["agreement"] = read_json(files["agreement"])
    if method.needs_objectives:
        searched = histories[method.name]
        front, winner = searched[searched["front"]].sort_values([*objectives, "evaluation"]), selected["winner"]["id"]
        content |= {
            "front": front.to_dict("records"),
            "front_figure": figure(lambda ax: draw.front_figure(ax, searched, front, objectives, winner), 7, 3.2),
        }
    return {
        **content,
        "selected": selected,
        "method": method,
        "evaluations": {name: table["evaluation"].max() for name, table in histories.items()},
        "best": {name: table["fitness"].max() for name, table in histories.items()},
        "latency": read_json(files["latency"])["held_out"] if files.get("latency") else None,
        "drawings": draw.drawings(selected),
        "trajectories_figure": figure(lambda ax: draw.trajectories_figure(ax, histories), 7, 3.2),
        "evaluated_figure": figure(lambda ax: draw.evaluated_figure(ax, histories, selected), 7, 3.4),
    }


def _trained(files: dict) -> dict:
    summary, curves = read_json(files["summary"]), pd.read_csv(files["curves"])
    return {
        "summary": summary,
        "controls_figure": figure(lambda ax: draw.controls_figure(ax, summary), 7, 1.9),
        "training_figure": figure(lambda ax: draw.training_figure(ax, curves), 7, 3.2),
    }


def _published(files: dict, chosen: str) -> dict:
    tables = {name: pd.read_csv(files[name]) for name in ("table1", "table3", "table4", "labels")}
    return {
        "published": {name: table.to_dict("records") for name, table in tables.items()},
        "labels_figure": figure(lambda ax: draw.labels_figure(ax, tables["labels"], chosen), 7, 3.6),
    }


def _environment() -> jinja2.Environment:
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
        "combiner": draw.combiner_title,
        # a title inside a sentence; names such as NSGA-II stay as they are
        "inside": lambda title: title if title[:2].isupper() else title[:1].lower() + title[1:],
    }
    return environment


def worth(proxies: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Join each proxy's correlation with accuracy and the cost of its pass, the best first.

    ``others`` is how many proxies the pass is shared with.
    """
    table = proxies.merge(costs.assign(others=costs["shared"] - 1), on="proxy", validate="one_to_one")
    return table.sort_values("spearman", ascending=False, kind="stable")
