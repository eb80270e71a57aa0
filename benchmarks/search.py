"""What a search costs besides scoring, how fast candidates are drawn, and LIBRA on many architectures.

    python benchmarks/search.py [--evaluations 150] [--workers 1 2]

Writes benchmarks/search/speed.json. Needs no data but scikit-learn's digits. README.md beside this file says what each
number is; goals are for two CPU cores and are printed, not asserted.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml

from libranas.config.checks import checked
from libranas.core.arch import Arch
from libranas.core.files import read_json, write_json, write_text
from libranas.core.progress import progress
from libranas.core.provenance import facts
from libranas.predictors.libra import choose
from libranas.predictors.selection import fitted
from libranas.runs.folder import RunFolder
from libranas.runs.stages.inputs import prepare, sample
from libranas.runs.stages.scores import layers, merge, score
from libranas.search.base import Evaluated
from libranas.search.fitness import Fitness
from libranas.search.registry import STRATEGIES
from libranas.search.run import run as search_run
from libranas.search.workers import shared_out
from libranas.spaces import Budget, Sampler, Space, make_space

ROOT = Path(__file__).resolve().parents[1]
COUNT, PROXIES = 10_000, 25
#: Labelled networks of the fitness; their accuracies are made up, which changes no time.
LABELLED = 30


def seconds(work) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def candidates(space: Space, budget: Budget) -> dict:
    """Members of the default space checked against its budget, counted (params, MACs, id) and none twice."""

    def draw():
        found = Sampler(space, budget, np.random.default_rng(0)).take(COUNT)
        assert len({(a.id, space.params(a), space.macs(a)) for a in found}) == COUNT

    def ask(name: str, evaluations: int):
        settings = {"population": 50, "parents": 10, "objectives": ["params", "macs"]}
        searcher = STRATEGIES[name].searcher(space, budget, 1, settings)
        history: list[Evaluated] = []
        while len(history) < evaluations:
            asked = list(searcher.ask(history))
            history += [Evaluated(a, float(int(a.id, 16) % 997), {}) for a in asked]

    runs = {"drawn": lambda: draw(), "asked of random": lambda: ask("random", COUNT)}
    for name in ("evolution", "ageing", "nsga2"):
        runs[f"asked of {name}, 2000"] = lambda name=name: ask(name, 2000)
    return {"count": COUNT, "goal_seconds": 5, "seconds": {name: seconds(run) for name, run in runs.items()}}


def libra() -> dict:
    rng = np.random.default_rng(0)
    accuracy = rng.normal(size=COUNT)
    noise = rng.normal(size=(COUNT, PROXIES))
    scores = pd.DataFrame(accuracy[:, None] * rng.uniform(0, 2, PROXIES) + noise).add_prefix("p")
    params = pd.Series(np.exp(accuracy + rng.normal(size=COUNT)))
    took = {
        mode: [seconds(lambda mode=mode: choose(scores, pd.Series(accuracy), params, mode)) for _ in range(3)]
        for mode in ("corrected", "literal")
    }
    return {"architectures": COUNT, "proxies": PROXIES, "goal_seconds": 2, "seconds": took}


def fitness_of(run: RunFolder) -> Fitness:
    """The fitness of the default experiment, fitted on a few networks with made-up accuracies."""
    prepare(run)
    sample(run)
    score(run, 0)
    merge(run, 1)
    layers(run)
    rng, ids = np.random.default_rng(0), run.ids[:LABELLED]
    made_up = pd.DataFrame({"id": ids, "seed": 0, "accuracy": rng.normal(size=LABELLED)})
    write_text(run.path("accuracy", method=run.config["benchmark"]["method"]), made_up.to_csv(index=False))
    return run.fitness(fitted(run.sample, run.accuracies, sorted(ids), run.config["libra"]["combiner"], 1))


def overhead(config: dict, space: Space, budget: Budget, evaluations: int, workers: list[int]) -> dict:
    """Evolution with the fitness of the default experiment: the time that is not scoring, as a share of scoring."""
    found = {"evaluations": evaluations, "goal_share": 0.02}
    with tempfile.TemporaryDirectory() as folder:
        fitness = fitness_of(RunFolder(folder, config))
        scoring, combining = [], []

        def evaluate(arch: Arch) -> tuple[float, dict]:
            begin = time.perf_counter()
            scores = fitness.scores(arch)
            between = time.perf_counter()
            value = fitness.of(arch, scores)
            scoring.append(between - begin)
            combining.append(time.perf_counter() - between)
            return value, scores

        searcher = STRATEGIES["evolution"].searcher(space, budget, 1, config["search"])
        whole = seconds(lambda: search_run(searcher, evaluate, evaluations, Path(folder) / "log", "key", progress))
        rest = whole - sum(scoring) - sum(combining)
        found |= {
            "scoring_seconds": sum(scoring),
            "combining_seconds": sum(combining),
            "searching_seconds": rest,
            "share_of_searching": rest / sum(scoring),
            "share_with_combining": (whole - sum(scoring)) / sum(scoring),
        }
        found["seconds_by_workers"] = {}
        for count in workers:
            with shared_out(fitness, count) as each:
                list(each(fitness, Sampler(space, budget, np.random.default_rng(9)).take(count)))  # started
                path = Path(folder) / f"log{count}"
                took = seconds(lambda: search_run(searcher, fitness, evaluations, path, "k", progress, each))  # noqa: B023
            found["seconds_by_workers"][count] = took
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluations", type=int, default=150)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "search" / "speed.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = checked(yaml.safe_load((ROOT / "config.yaml").read_text()))
    config |= {"device": "cpu", "sample": {"count": LABELLED + 20, "shards": 1}}
    space = make_space(config["space"], config["data"]["image_size"], config["data"]["channels"], 10)
    budget = Budget.from_settings(config["budget"])
    result = {
        "candidates": candidates(space, budget),
        "libra": libra(),
        "overhead": overhead(config, space, budget, options.evaluations, options.workers),
        "threads": 1,
        "facts": facts(),
    }
    write_json(options.output, result)
    for name in ("candidates", "libra", "overhead"):
        print(name, read_json(options.output)[name])


if __name__ == "__main__":
    main()
