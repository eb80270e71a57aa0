"""What a search is worth in trained accuracy: equal cost, many seeds.

    snakemake --cores 2 layers                                       # a run that chose its layer window
    python benchmarks/trained_search.py results/digits [config/OTHER.yaml ...] [--seeds 10] [--workers 2]

For every seed anew: a sample and its scores, a guided search, evolution and random search on accuracies, each with as
many epochs of training, and the networks that they find, a random one of the winner's size and the largest of the
budget. Each of these is trained by the final recipe, several times, and tested. Networks of one seed see the same
orders of images. Writes ``benchmarks/search/trained-RUN.csv`` (a row for each seed and network) and
``trained-RUN.json`` (means, paired differences with 95 % t intervals over the seeds, conditions). Killed, it goes on.
"""

import argparse
import multiprocessing
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from snakemake.utils import update_config

from libranas.config.checks import checked
from libranas.core.arch import Arch
from libranas.core.files import read_json, write_json, write_text
from libranas.core.provenance import facts
from libranas.core.random import stream_seed
from libranas.core.stats import mean_interval
from libranas.predictors.base import Sample
from libranas.runs.folder import RunFolder
from libranas.runs.stages.guided import score_each
from libranas.runs.stages.labels import train_labels
from libranas.runs.stages.training import trained
from libranas.search.base import fittest
from libranas.search.registry import STRATEGIES
from libranas.search.rounds import Candidates
from libranas.search.run import run as search_run
from libranas.search.selection import EQUAL_SIZE, equal_size
from libranas.search.simulate import looked_up
from libranas.search.strategies.guided import sizes
from libranas.spaces import Sampler

ROOT = Path(__file__).resolve().parents[1]
#: Population and parents of the evolution on accuracies: it has a few dozen trainings.
EVOLUTION = {"population": 10, "parents": 4}


def configuration(presets: list[Path]) -> dict:
    """config.yaml with the presets over it, as Snakemake does."""
    config: dict = {}
    for path in (ROOT / "config.yaml", *presets):
        update_config(config, yaml.safe_load(path.read_text()))
    return checked(config)


def guided(run: RunFolder, archs: list[Arch], label: Callable[[Arch], float]) -> Arch:
    """Return the winner of a guided search, as the workflow runs it."""
    settings, seed = run.config["search"], run.config["seed"]
    proxies = tuple(sorted(run.config["score"]["proxies"]))
    scores = partial(score_each, run, proxies=proxies, log_name=f"trained_search/{seed}/scores.jsonl")
    score_AP = pd.DataFrame(scores(archs), index=[a.id for a in archs], columns=list(proxies))
    candidates = Candidates(run.space, run.budget, seed, archs, Sample.of(score_AP, run.space, archs))
    known: dict[str, float] = {}
    for number, count in enumerate(sizes(settings["labels"], settings["round"])):
        if number:
            new = candidates.children(number, settings["population"], settings["parents"])
            candidates.add(new, scores(new))
        chosen = [candidates.archs[i] for i in candidates.propose(number, count)]
        known |= {arch.id: label(arch) for arch in chosen}
        candidates.know(pd.Series(known))
    finalists = [candidates.archs[i] for i in candidates.finalists(settings["long"])]
    expected_N = candidates.expected({a.id: final(run, a, 0, "val")["val_accuracy"] for a in finalists})
    return candidates.archs[max(candidates.known()[0], key=lambda i: expected_N[i])]


def final(run: RunFolder, arch: Arch, index: int, test: str) -> dict:
    """Train by the final recipe for the time `index`, and test on a split."""
    path = run.state(f"trained_search/{run.config['seed']}/{arch.id}-{index}-{test}.json")
    if not path.exists():
        sets = run.splits("train", "val", test)
        _, metrics = trained(run, arch, index, str(path.with_suffix("").relative_to(run.state(""))), sets)
        write_json(path, {name: metrics[name] for name in ("val_accuracy", "test_accuracy")})
    return read_json(path)


def short_trainings(config: dict) -> int:
    """How many short trainings cost as much as a guided search: a long one counts by its epochs."""
    settings, short = config["search"], config["benchmark"]["recipe"]["epochs"] * config["benchmark"]["seeds"]
    return settings["labels"] + round(settings["long"] * config["train"]["recipe"]["epochs"] / short)


def one_seed(seed: int, folder: Path, config: dict, finals: int) -> list[dict]:
    """The networks of every strategy and their controls, trained."""
    torch.set_num_threads(1)
    run = RunFolder(folder, {**config, "seed": seed})
    space, budget, settings = run.space, run.budget, config["search"]
    archs = Sampler(space, budget, np.random.default_rng(stream_seed(seed, "sample"))).take(config["sample"]["count"])
    trainings = short_trainings(config)

    def label(arch: Arch) -> float:
        table = train_labels(run, [arch], [config["benchmark"]["seeds"]], f"trained_search/{seed}/labels.jsonl")
        return float(table["accuracy"].mean())

    sized = STRATEGIES["params"]
    largest = search_run(
        sized.searcher(space, budget, seed, settings),
        sized.evaluation(space, lambda arch: (0.0, {})),
        settings["evaluations"],
        run.state(f"trained_search/{seed}/params.jsonl"),
        "params",
    )
    networks = {"guided": guided(run, archs, label)}
    evolution = STRATEGIES["evolution"].make(space, budget, seed, **EVOLUTION)
    networks["evolution"] = fittest(looked_up(evolution, label, trainings), 1)[0].arch
    more = Sampler(space, budget, np.random.default_rng(stream_seed(seed, "random"))).take(trainings)
    networks["random"] = max(more, key=label)
    networks["equal size"] = next(equal_size(space, budget, networks["guided"], EQUAL_SIZE, seed))
    networks["largest"] = fittest(largest, 1)[0].arch
    return [
        {
            "seed": seed,
            "network": name,
            "id": arch.id,
            "params": space.params(arch),
            "macs": space.macs(arch),
            "label": label(arch),
            "trainings": trainings if name in ("guided", "evolution", "random") else 0,
            "test_accuracy": np.mean([final(run, arch, index, "test")["test_accuracy"] for index in range(finals)]),
            "architecture": arch.json,
        }
        for name, arch in networks.items()
    ]


def estimate(values: pd.Series) -> dict[str, float]:
    return dict(zip(("mean", "low", "high"), mean_interval(values), strict=True))


def summary(table: pd.DataFrame) -> dict:
    """Mean test accuracy of every kind of network, and how much more that of guided search is, paired by seed."""
    accuracy = table.pivot(index="seed", columns="network", values="test_accuracy")
    return {
        "test_accuracy": {name: estimate(accuracy[name]) for name in accuracy},
        "guided_minus": {name: estimate(accuracy["guided"] - accuracy[name]) for name in accuracy if name != "guided"},
        "params": table.groupby("network")["params"].mean().to_dict(),
        "macs": table.groupby("network")["macs"].mean().to_dict(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run that got as far as the stage layers")
    parser.add_argument("presets", nargs="*", type=Path, help="configuration files of that run")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--finals", type=int, default=3, help="final trainings of each network")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    config = {**configuration(arguments.presets), "device": "cpu"}
    work = partial(one_seed, folder=arguments.run, config=config, finals=arguments.finals)
    path = ROOT / "benchmarks" / "search" / f"trained-{arguments.run.name}"
    rows: list[dict] = []
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        for of_seed in pool.imap(work, range(1, arguments.seeds + 1)):
            rows += of_seed
            write_text(path.with_suffix(".csv"), pd.DataFrame(rows).to_csv(index=False, float_format="%.6g"))
            print(
                pd.DataFrame(of_seed)[["seed", "network", "params", "label", "test_accuracy"]].to_string(), flush=True
            )
    result = {
        **summary(pd.DataFrame(rows)),
        "seeds": arguments.seeds,
        "finals": arguments.finals,
        "settings": {section: config[section] for section in ("space", "budget", "search")},
        "short": config["benchmark"]["recipe"],
        "final": config["train"]["recipe"],
        "device": "cpu",
        "facts": facts(),
    }
    write_json(path.with_suffix(".json"), result)
    print(pd.DataFrame(result["test_accuracy"]).T.round(4).to_string())
    print(pd.DataFrame(result["guided_minus"]).T.round(4).to_string())


if __name__ == "__main__":
    main()
