"""What a search is worth in trained accuracy: equal budgets, many seeds.

    snakemake --cores 2 libra                                        # a run with labels, such as the default one
    python benchmarks/trained_search.py results/digits [config/OTHER.yaml ...] [--seeds 10] [--workers 2]

For every seed anew: the labelled architectures that the combiner is fitted on, the searches with the same number of
evaluations, the networks that they find, and a training of each. Networks of one seed see the same order of images.
Writes ``benchmarks/search/trained-RUN.csv`` (a row a seed and network: size, fitness, test accuracy) and
``trained-RUN.json`` (means, paired differences with 95 % t intervals over the seeds, how fitness and test accuracy go
together, conditions). Killed, it goes on.
"""

import argparse
import multiprocessing
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from snakemake.utils import update_config

from libranas.config.checks import checked
from libranas.core.arch import Arch
from libranas.core.files import read_json, write_json, write_text
from libranas.core.provenance import facts, stage_version
from libranas.core.random import stream_seed
from libranas.core.stats import bootstrap_interval, mean_interval, spearman
from libranas.predictors.selection import fitted
from libranas.runs.folder import RunFolder
from libranas.search.base import fittest as search_fittest
from libranas.search.registry import STRATEGIES
from libranas.search.run import run as search_run
from libranas.search.selection import EQUAL_SIZE, equal_size
from libranas.training.recipe import make_recipe
from libranas.training.train_and_test import train_and_test

ROOT = Path(__file__).resolve().parents[1]
#: Searches that are compared; each takes the fittest of as many evaluations.
COMPARED = ("evolution", "ageing", "random")


def configuration(presets: list[Path]) -> dict:
    """config.yaml with the presets over it, as Snakemake does."""
    config: dict = {}
    for path in (ROOT / "config.yaml", *presets):
        update_config(config, yaml.safe_load(path.read_text()))
    return checked(config)


def one_seed(seed: int, run: RunFolder, state: Path) -> list[dict]:
    """The networks of every strategy and their controls, trained."""
    torch.set_num_threads(1)
    config, space, budget, settings, accuracy = run.config, run.space, run.budget, run.config["search"], run.accuracies
    rng = np.random.default_rng(stream_seed(seed, "calibration"))
    labelled = rng.permutation(len(accuracy))[: config["libra"]["calibration"]]
    calibration, combiner = sorted(accuracy.index[labelled]), config["libra"]["combiner"]
    fitness = run.fitness(fitted(run.sample, accuracy, calibration, combiner, seed))
    how = {name: value for name, value in settings.items() if name not in ("evaluations", "workers")}
    depends = combiner, calibration, run.sample.score_AP.to_csv(), accuracy.to_csv(), how
    key = fitness.scores_key + run.key("search", stage_version("libra"), *depends)

    def found(name: str) -> Arch:
        strategy = STRATEGIES[name]
        searcher, evaluate = strategy.searcher(space, budget, seed, settings), strategy.evaluation(space, fitness)
        path = state / f"{name}-{seed}.jsonl"
        return search_fittest(search_run(searcher, evaluate, settings["evaluations"], path, key), 1)[0].arch

    networks = {name: found(name) for name in (*COMPARED, "params")}
    networks["equal size"] = next(equal_size(space, budget, networks["evolution"], EQUAL_SIZE, seed))
    recipe, rows = make_recipe(config["train"]["recipe"]), []
    for name, arch in networks.items():
        path = state / f"trained-{seed}-{arch.id}.json"
        trained = run.key("train", arch.id, recipe, seed, version("torch"), version("timm"))
        if not path.exists() or read_json(path)["key"] != trained:
            sets = run.splits("train", "val", "test")
            _, metrics = train_and_test(space, arch, sets, recipe, (seed, 0), path.with_suffix(""), trained)
            write_json(path, {"key": trained, "test_accuracy": metrics["test_accuracy"]})
        value, _ = fitness(arch)
        facts_of = {"id": arch.id, "params": space.params(arch), "macs": space.macs(arch), "fitness": value}
        rows.append({"seed": seed, "network": name, **facts_of, "test_accuracy": read_json(path)["test_accuracy"]})
    return rows


def summary(table: pd.DataFrame) -> dict:
    """Mean test accuracy of every kind of network, how much more that of evolution is, paired by seed, and how well
    fitness ranks all that were trained."""
    accuracy = table.pivot(index="seed", columns="network", values="test_accuracy")
    ours = accuracy["evolution"]
    differences = {name: mean_interval(ours - accuracy[name]) for name in accuracy if name != "evolution"}
    once = table.drop_duplicates(["seed", "id"])
    by_seed = [rows[["fitness", "test_accuracy"]].to_numpy() for _, rows in once.groupby("seed")]

    def pooled(drawn) -> float:
        return spearman(*np.concatenate([by_seed[i] for i in drawn]).T)

    # Networks of a seed share a combiner: seeds are what is drawn again.
    low, high = bootstrap_interval(pooled, np.arange(len(by_seed)), seed=0)
    return {
        "test_accuracy": {name: mean_interval(accuracy[name])._asdict() for name in accuracy},
        "evolution_minus": {name: estimate._asdict() for name, estimate in differences.items()},
        "params": table.groupby("network")["params"].mean().to_dict(),
        "fitness": table.groupby("network")["fitness"].mean().to_dict(),
        "fitness_and_accuracy": {
            "trainings": len(once),
            "spearman": pooled(range(len(by_seed))),
            "low": low,
            "high": high,
            "within_a_seed": float(np.nanmean([spearman(*rows.T) for rows in by_seed])),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run that got as far as the stage libra")
    parser.add_argument("presets", nargs="*", type=Path, help="configuration files of that run")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    config = {**configuration(arguments.presets), "device": "cpu"}
    run = RunFolder(arguments.run, config)
    state = run.state("trained_search")
    state.mkdir(parents=True, exist_ok=True)
    work = partial(one_seed, run=run, state=state)
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        rows = [row for rows in pool.imap(work, range(arguments.seeds)) for row in rows]
    table = pd.DataFrame(rows)
    result = {
        **summary(table),
        "seeds": arguments.seeds,
        "evaluations": config["search"]["evaluations"],
        "labels": config["libra"]["calibration"],
        "combiner": config["libra"]["combiner"],
        "budget": config["budget"],
        "recipe": config["train"]["recipe"],
        "device": "cpu",
        "facts": facts(),
    }
    path = ROOT / "benchmarks" / "search" / f"trained-{arguments.run.name}"
    write_text(path.with_suffix(".csv"), table.to_csv(index=False, float_format="%.6g"))
    write_json(path.with_suffix(".json"), result)
    print(pd.DataFrame(result["test_accuracy"]).T.round(4).to_string())
    print(pd.DataFrame(result["evolution_minus"]).T.round(4).to_string())


if __name__ == "__main__":
    main()
