"""The report: one HTML page that opens offline. It shows what the stages computed and computes nothing new."""

import json
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup

from libranas.core.files import read_json, write_text
from libranas.core.provenance import facts
from libranas.labels.agreement import between_seeds, noise_ceiling
from libranas.labels.table import mean_accuracies, read_accuracies
from libranas.report import figures as draw
from libranas.report import search_figures as draw_search
from libranas.report.citations import bibtex
from libranas.report.comparison import ROLES
from libranas.report.cost import costs, minutes
from libranas.report.drawing import figure
from libranas.report.networks import ACCURACIES, brief, networks
from libranas.report.rounds import rounds
from libranas.search.registry import STRATEGIES

FOLDER = Path(__file__).parent


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
    content = {"selected": None, "summary": None, "latency": None, "drawings": {}, "published": {}, "rounds": []}
    content |= {name: read_json(files[name]) for name in ("selected", "summary") if name in files}
    histories = dict(zip(strategies, map(pd.read_csv, files.get("histories", [])), strict=True))
    content |= _scored(files, config)
    content |= _named(files, config, content, histories)
    if histories:
        content |= _searched(files, config, content, histories, times)
    if "summary" in files:
        content |= _trained(files, content)
    if "table1" in files:
        content |= _published(files, content["choice"]["combiner"]["name"])
    content |= {"config": config, "config_json": json.dumps(config, indent=2), "command": command}
    content |= {"work": list(costs(times)), "bibtex": bibtex(config, content["choice"])}
    content |= {"roles": ROLES, "facts": facts(), "accuracies": ACCURACIES}
    environment = _environment()
    markdown = environment.get_template("summary.md.j2").render(content)
    write_text(path, environment.get_template("template.html.j2").render(content, markdown=markdown))


def _scored(files: dict, config: dict) -> dict:
    """Return the content about scores and combiners."""
    names = ("archs", "failures", "costs", "curve", "methods", "proxies", "parts")
    tables = {name: pd.read_csv(files[name]) for name in names}
    manifest, choice, window = (read_json(files[name]) for name in ("manifest", "choice", "window"))
    accuracy, labels, seed = mean_accuracies(files["accuracy"]), read_accuracies(files["accuracy"]), config["seed"]
    repeated = labels["id"].duplicated().any()
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
        "curve_figure": figure("Curve of the layers", lambda ax: draw.curve_figure(ax, tables["curve"], window), 7, 3),
        "proxies_figure": figure(
            "Spearman of every proxy", lambda ax: draw.proxies_figure(ax, proxies, choice), 7, 0.6 + 0.27 * len(proxies)
        ),
        "methods_figure": figure(
            "Spearman of every method", lambda ax: draw.methods_figure(ax, methods, chosen), 7, 0.6 + 0.3 * len(methods)
        ),
    }


def _named(files: dict, config: dict, content: dict, histories: dict[str, pd.DataFrame]) -> dict:
    """Return the networks that the page names, and the figure of their scores."""
    scores, accuracy = pd.read_csv(files["table"], index_col="id"), content["accuracy"]
    in_table = config["benchmark"]["method"] == "table"  # accuracies in the table's own unit
    # that of the first proxy of LIBRA that is not the size itself
    proxy = next((name for name in content["choice"]["proxies"] if name != "params"), "params")
    tested = content["summary"]["roles"] if content["summary"] else {}
    known = networks(content["archs"], accuracy, scores[proxy], histories, content["selected"] or {}, tested, in_table)
    size = figure(
        f"{proxy} against size", lambda ax: draw.size_figure(ax, scores, proxy, accuracy, in_table, known), 7, 3.4
    )
    listed = known[known["row"] != ""].reset_index().to_dict("records")
    return {"known": known, "networks": listed, "size_figure": size, "proxy": proxy, "in_table": in_table}


def _searched(files: dict, config: dict, content: dict, histories: dict[str, pd.DataFrame], times: Path) -> dict:
    """Return the content about the searches and the networks that they found."""
    selected, known, accuracy = content["selected"], content["known"], content["accuracy"]
    method, objectives = STRATEGIES[next(iter(histories))], config["search"]["objectives"]
    found = {"front": [], "guided_figure": None}
    if method.trains:
        guided = histories[method.name]
        drawn = content["archs"]["id"]
        random = accuracy.reindex(drawn[drawn.isin(accuracy.index)])  # in the order of the draw
        found["guided_figure"] = figure(
            "Accuracy by trainings", lambda ax: draw_search.guided_figure(ax, guided, random, known), 7, 3.6
        )
        found |= {"rounds": rounds(guided, times), "random": random, "trained": guided["accuracy"].max()}
        found |= {"agreement": read_json(files["agreement"]), "long": guided["long_accuracy"].count()}
        found |= {"random_minutes": minutes(times, "benchmark/train-*.tsv")}
        found |= {"long_minutes": minutes(times, "search/guided/long-*.tsv")}
    if method.needs_objectives:
        searched = histories[method.name]
        front, winner = searched[searched["front"]].sort_values([*objectives, "evaluation"]), selected["winner"]["id"]
        found["front"] = front.to_dict("records")
        found["front_figure"] = figure(
            "Front", lambda ax: draw_search.front_figure(ax, searched, front, objectives, winner, known), 7, 3.4
        )
    return {
        **found,
        "method": method,
        "evaluations": {name: table["evaluation"].max() for name, table in histories.items()},
        "best": {name: table["fitness"].max() for name, table in histories.items()},
        "latency": read_json(files["latency"])["held_out"] if files.get("latency") else None,
        "drawings": draw_search.drawings(selected),
        "trajectories_figure": figure(
            "Fitness by evaluations", lambda ax: draw_search.trajectories_figure(ax, histories, known), 7, 3.4
        ),
        "evaluated_figure": figure(
            "Fitness against size", lambda ax: draw_search.evaluated_figure(ax, histories, selected, known), 7, 3.4
        ),
    }


def _trained(files: dict, content: dict) -> dict:
    summary, known, curves = content["summary"], content["known"], pd.read_csv(files["curves"])
    rows = {role: known["row"][entry["id"]] for role, entry in summary["roles"].items()}
    return {
        "controls_figure": figure(
            "Test accuracy of winner and controls", lambda ax: draw.controls_figure(ax, summary, known), 7, 2.1
        ),
        "training_figure": figure("Accuracy by epoch", lambda ax: draw.training_figure(ax, curves, rows), 7, 3.4),
    }


def _published(files: dict, chosen: str) -> dict:
    tables = {name: pd.read_csv(files[name]) for name in ("table1", "table3", "table4", "labels")}
    return {
        "published": {name: table.to_dict("records") for name, table in tables.items()},
        "labels_figure": figure(
            "Spearman by labels", lambda ax: draw.labels_figure(ax, tables["labels"], chosen), 7, 3.6
        ),
    }


def missing(value: float | None) -> bool:
    return value is None or value != value


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=lambda name: name == "template.html.j2",
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.tests["missing"] = missing
    environment.globals["file"] = lambda name: Markup((FOLDER / name).read_text(encoding="utf-8"))
    environment.filters |= {
        "count": lambda v: f"{int(v):,}",
        "percent": lambda v: "n/a" if missing(v) else f"{100 * v:.2f} %",
        # seeds that agree to the last image say nothing about their spread
        "interval": lambda a: (
            f"{100 * a['low']:.2f} % to {100 * a['high']:.2f} %" if a["low"] is not None else "all equal"
        ),
        "points": lambda v: "n/a" if missing(v) else f"{100 * v:+.2f}",
        "number": lambda v: "n/a" if missing(v) else f"{v:.3f}",
        "brief": lambda v: "n/a" if missing(v) else brief(v),
        "dash": lambda text: "–" if text == "n/a" else text,  # where most cells are empty
        "scaled": lambda v, factor: "n/a" if missing(v) else f"{factor * v:,.1f}",
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
