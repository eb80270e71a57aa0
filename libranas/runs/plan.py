"""Estimate a run before it begins: its jobs, their minutes, disk and memory."""

import heapq
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from libranas.core.errors import LibranasError
from libranas.runs.probe import Costs, Images
from libranas.search.registry import STRATEGIES
from libranas.search.strategies.guided import sizes

#: Seconds of the jobs that neither score nor train, in starts of a job; as in the default run.
FIXED = {"libra": 4.0, "report": 1.6, "export": 1.5, "published": 10.0, "latency": 20.0}
#: All others: Python and pandas.
SMALL = 0.3
#: An image of the final training in images of a short one (benchmarks/training/short_loop.json), of a supernet's, and
#: of an evaluation.
FINAL, SUPERNET, EVALUATED = 1.4, 1.4, 0.35
#: Seconds to decode an image, for each pixel of its side.
DECODE = 3e-5
#: Sizes on disk: what a training keeps, in its weights (a checkpoint has the moments of the optimizer, too); bytes of
#: the scores of a network.
TRAINING, SCORES = 4, 30_000


@dataclass
class Job:
    """A job that a run still has to do: its rule (of a search with the strategy), the jobs before it, its seconds."""

    rule: str
    after: set[str] = field(default_factory=set)
    seconds: float = 0.0
    begin: float = 0.0


def read_jobs(dot: str) -> dict[str, Job]:
    """Read ``snakemake --dag dot``: number to job; those that are done (drawn dashed) are left out."""
    jobs = {}
    for number, label, style in re.findall(r'^\s*(\d+)\[label = "([^"]*)".*style="([\w,]+)"', dot, re.M):
        if "dashed" not in style:
            rule, *wildcards = label.split("\\n")
            strategy = "".join(text.partition(": ")[2] for text in wildcards if text.startswith("strategy: "))
            jobs[number] = Job(f"{rule} {strategy}".strip())
    for before, after in re.findall(r"^\s*(\d+) -> (\d+)", dot, re.M):
        if before in jobs and after in jobs:
            jobs[after].after.add(before)
    return jobs


def ask_snakemake(arguments: Sequence[str]) -> dict[str, Job]:
    """Return the jobs of the workflow in this folder; LibranasError with what Snakemake says if it cannot plan."""
    command = [sys.executable, "-m", "snakemake", "--dag", "dot", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise LibranasError(f"Snakemake cannot plan this run:\n{done.stderr.strip()}", "Mend what it says.")
    return read_jobs(done.stdout)


def seconds_of(config: Mapping, images: Images, costs: Costs, counts: Mapping[str, int]) -> dict[str, float]:
    """Return the expected seconds of one job of each rule.

    Parameters
    ----------
    counts : rule to its jobs of a whole run, among which the work is shared out
    """
    bench, search, train = config["benchmark"], config["search"], config["train"]
    seeds, training = config["score"]["seeds"], _Trainings(images, costs)
    known = {rule: costs.start * FIXED.get(rule, SMALL) for rule in counts}

    def shared(rule: str, seconds: float) -> float:
        return costs.start + seconds / max(1, counts.get(rule, 1))

    known["prepare"] = costs.start * SMALL + sum(images.splits.values()) * DECODE * config["data"]["image_size"]
    known["score"] = shared("score", config["sample"]["count"] * seeds * costs.score)
    if bench["recipe"]:
        often = max(0, bench["repeated"]["seeds"] - bench["seeds"])
        trainings = bench["count"] * bench["seeds"] + min(bench["count"], bench["repeated"]["count"]) * often
        known["benchmark_train_shard"] = shared("benchmark_train_shard", trainings * training.short(bench["recipe"]))
    if bench["supernet"]:
        inherited = (bench["inherited"] or bench["count"]) * images.splits["val"] * EVALUATED * costs.image
        known["benchmark_supernet"] = costs.start + SUPERNET * training.short(bench["supernet"]) + inherited
    if search:
        asked = search["evaluations"] * search["seeds"] * costs.score / search["workers"]
        for rule in (rule for rule in counts if rule.startswith("search ")):
            known[rule] = costs.start + asked * (not STRATEGIES[rule.split()[1]].own_fitness)
        known["prune"] = costs.start + 100 * costs.score
        rounds = max(1, len(sizes(search["labels"], search["round"])))
        later = (rounds - 1) / rounds  # the first round has no children
        known["guided_propose"] = costs.start + later * search["population"] * search["seeds"] * costs.score
        if bench["recipe"]:
            labels = search["labels"] * bench["seeds"] * training.short(bench["recipe"])
            known["guided_train"] = shared("guided_train", labels)
    if train:
        final = FINAL * training.whole(train["recipe"])
        known["train"] = costs.start * 1.5 + final
        if search and search["long"]:
            known["guided_long"] = shared("guided_long", search["long"] * final)
    return known


@dataclass(frozen=True)
class _Trainings:
    images: Images
    costs: Costs

    def short(self, recipe: Mapping) -> float:
        """Train, and evaluate once."""
        epochs, val = recipe["epochs"], EVALUATED * self.images.splits["val"]
        return self.costs.image * (epochs * self.images.splits["train"] + val)

    def whole(self, recipe: Mapping) -> float:
        """Train, evaluate after each epoch, and test."""
        epochs, test = recipe.get("epochs", 100), EVALUATED * self.images.splits["test"]
        each = self.images.splits["train"] + EVALUATED * self.images.splits["val"]
        return self.costs.image * (epochs * each + test)


def scheduled(jobs: Mapping[str, Job], cores: int) -> float:
    """Return the seconds until all jobs are done, each as soon as a core is free and what it needs is there."""
    waiting, follow = {}, defaultdict(list)
    for number, job in jobs.items():
        waiting[number] = len(job.after)
        for before in job.after:
            follow[before].append(number)
    ready, running, now = [n for n, count in waiting.items() if not count], [], 0.0
    while ready or running:
        while ready and len(running) < cores:
            number = ready.pop(0)
            jobs[number].begin = now
            heapq.heappush(running, (now + jobs[number].seconds, number))
        now, number = heapq.heappop(running)
        for after in follow[number]:
            waiting[after] -= 1
            ready += [after] * (not waiting[after])
    return now


@dataclass(frozen=True)
class Plan:
    """What a run is expected to take.

    Attributes
    ----------
    rules : (rule, jobs, seconds of one), in the order of the work
    seconds : until the end
    disk, memory : bytes; memory with all cores busy
    """

    rules: list[tuple[str, int, float]]
    seconds: float
    disk: float
    memory: float


def plan(config: Mapping, jobs: dict[str, Job], images: Images, costs: Costs, cores: int) -> Plan:
    """Estimate the jobs that a run still has to do."""
    counts = Counter(job.rule for job in jobs.values())
    seconds = seconds_of(config, images, costs, counts)
    for job in jobs.values():
        job.seconds = 0.0 if job.rule == "all" else seconds[job.rule]
    whole = scheduled(jobs, cores)
    in_order = dict.fromkeys(job.rule for job in sorted(jobs.values(), key=lambda job: job.begin))
    rules = [(rule, counts[rule], seconds[rule]) for rule in in_order if rule != "all"]
    data, weights = config["data"], counts["train"] + 2 * counts["guided_long"]
    pixels = sum(images.splits.values()) * data["channels"] * data["image_size"] ** 2
    scores = config["sample"]["count"] * config["score"]["seeds"] * SCORES
    disk = pixels + scores + weights * TRAINING * costs.params
    return Plan(rules, whole, disk, costs.memory * min(cores, len(jobs)))


def workflow_config(files: Sequence[Path], entries: Sequence[str]) -> dict:
    """Return the configuration as the workflow in this folder sees it: ``config.yaml``, then files, then ``KEY=VALUE``.

    LibranasError where there is no workflow.
    """
    import yaml
    from snakemake.cli import parse_config
    from snakemake.utils import update_config

    from libranas.config.checks import checked

    if not Path("Snakefile").exists() or not Path("config.yaml").exists():
        raise LibranasError(f"{Path.cwd()} has no Snakefile and config.yaml.", "Change to the folder of the workflow.")
    config: dict = {}
    for path in (Path("config.yaml"), *files):
        if not path.exists():
            raise LibranasError(f"{path} does not exist.", "Name a configuration file, such as those in config/.")
        update_config(config, yaml.safe_load(path.read_text()))
    update_config(config, parse_config(entries))
    return checked(config)
