"""What proxies and combiners are worth on ViT-Bench-101 (Wei et al., AAAI 2024).

    python benchmarks/vit_bench_101.py FOLDER --images CIFAR10.npz    # scores first, resumable
    python benchmarks/vit_bench_101.py FOLDER                         # from the kept scores, half an hour

FOLDER has the published JSON files, networks with accuracies. The images that these networks were trained on are not at
hand: the scores are of CIFAR-10 images, enlarged to 112 pixels. Written to ``benchmarks/vit_bench_101``:
``scores/FILE.csv``, every proxy for every network, higher = better (those ending in ``_window`` are of the label-free
layer window), and the conditions as JSON; ``proxies.csv``, each proxy on each task; ``against_params.csv``, on how many
tasks a proxy beats or equals #params; ``within.csv``, combiners with labels of the same space and task; ``across.csv``,
combiners with labels of another space, those that ``benchmarks/vit`` has included.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from score_tables import scorer_of

from libranas import scores as store
from libranas.core.arch import Arch
from libranas.core.files import read_json, write_json, write_text
from libranas.core.progress import progress
from libranas.core.random import stream_seed
from libranas.core.stats import bootstrap_interval, kendall, spearman, spearman_interval
from libranas.predictors.base import Calibration, Sample
from libranas.predictors.evaluation import evaluate, proxy_table
from libranas.predictors.registry import COMBINERS
from libranas.scores import layer_window as layers
from libranas.scores.shard import score_shard
from libranas.spaces import Space
from libranas.spaces import file_formats as network_files
from libranas.zero_cost.registry import list_proxies

HERE = Path(__file__).with_name("vit_bench_101")
IMAGE_SIZE, CLASSES = 112, 10
#: All but the one that needs a size to favour.
NAMES = [name for name in list_proxies() if name != "reg_swap"]
#: Data set and training: plain, or distilled (kd). ``imagenet_super_acc`` is misaligned in the published files.
TASKS = [f"{data}_{training}_acc" for data in ("c100", "flower", "chaoyang") for training in ("base", "kd")]
#: The one task of a benchmark of our own.
OWN = "trained"
SPLITS, LABELS = 20, (0, 25, 50)
#: What can be made alone.
PARTS = ("proxies", "within", "across")


def read(path: Path) -> tuple[Space, list, pd.DataFrame]:
    """The space of a published file, its networks, and their accuracies; rows named by the networks' ids."""
    content = network_files.read_file(path)
    pit = "base_dim" in content[0]["arch"]
    settings = {} if pit else {"relative_position": False, "head_dim": "auto"}
    space = network_files.network_space(content, settings, IMAGE_SIZE, 3, CLASSES)
    table = network_files.networks_table(content, space)
    archs = [space.parse(text) for text in table["architecture"]]
    table.index = pd.Index([arch.id for arch in archs], name="id")
    once = ~table.index.duplicated()
    return space, [a for a, kept in zip(archs, once, strict=True) if kept], table[once]


def scored(path: Path, images: str, state: Path) -> None:
    """Score the networks of a file with the proxies that its table lacks, going on from what is there."""
    space, archs, _ = read(path)
    out, about = (HERE / "scores" / f"{path.stem}.{kind}" for kind in ("csv", "json"))
    kept = pd.read_csv(out, index_col=0) if out.exists() else pd.DataFrame()
    names = [name for name in NAMES if name not in kept]
    scorer = scorer_of(space, images, IMAGE_SIZE)
    scores = score_shard(scorer, archs, 1, names, state / f"{path.stem}.jsonl", progress)
    if "lswag" in names:
        table = layers.whole_and_windowed(scores, layers.choose_window(layers.curve(scores)).window)
        facts = scores.provenance
    else:
        table = kept.join(store.frame(scores)[names])
        facts = read_json(about) | {f"added: {', '.join(names)}": scores.provenance}
    write_text(out, table.to_csv(float_format="%.7g"))
    write_json(about, facts)


def less(one_A, other_A, accuracy_A) -> float | np.ndarray:
    """How much better one ranking is than another; (...,) for stacks (..., A)."""
    return spearman(one_A, accuracy_A) - spearman(other_A, accuracy_A)


def against_params(score_AP: pd.DataFrame, accuracy_A: pd.Series) -> pd.DataFrame:
    """Spearman of each proxy less that of #params on one task, with a paired bootstrap interval over networks."""
    rows = []
    for name in score_AP:
        arrays = score_AP[name], score_AP["params"], accuracy_A
        low, high = bootstrap_interval(less, *arrays, seed=stream_seed(0, "against params", name), stacks=True)
        rows.append({"proxy": name, "difference": less(*arrays), "low": low, "high": high})
    return pd.DataFrame(rows)


def proxies_of(name: str, task: str, score_AP: pd.DataFrame, accuracy_A: pd.Series) -> pd.DataFrame:
    """:func:`libranas.predictors.evaluation.proxy_table`, with intervals of Kendall's tau and the differences from
    #params."""
    table = proxy_table(score_AP, accuracy_A, score_AP["params"]).set_index("proxy")
    for proxy in score_AP:
        seed = stream_seed(0, "kendall", proxy)
        table.loc[proxy, ["kendall_low", "kendall_high"]] = bootstrap_interval(
            kendall, score_AP[proxy], accuracy_A, seed=seed
        )
    difference = against_params(score_AP, accuracy_A).set_index("proxy").add_prefix("less_params_")
    return table.join(difference).reset_index().assign(space=name, task=task)


def own_ranks(sample: Sample) -> Sample:
    """The sample with each column as its rank fraction in its own space: what another space can be compared by."""

    def fraction(column: pd.Series) -> pd.Series:
        return column.rank() / (len(column) + 1)

    return Sample(sample.score_AP.apply(fraction), fraction(sample.params_A))


def own_benchmarks() -> tuple[dict[str, Sample], dict[str, pd.DataFrame]]:
    """Networks of ``benchmarks/vit`` that were trained from scratch; they have one task each."""
    samples, accuracies = {}, {}
    for folder in sorted(path.parent for path in HERE.with_name("vit").glob("*/trained.csv")):
        table = pd.read_csv(folder / "trained.csv")
        table.index = [Arch.from_json(text).id for text in table["architecture"]]
        score_AP = pd.read_csv(folder / "scores.csv", index_col="id").loc[table.index]
        samples[folder.name] = Sample(score_AP, table["params"])
        accuracies[folder.name] = pd.DataFrame({OWN: table["accuracy"]})
    return samples, accuracies


def across(samples: dict[str, Sample], accuracies: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Combiners fitted on all networks of one space and judged on all of another: on the same task, where both have it.

    Features of one space mean nothing in another and are left out; so are two benchmarks with the same networks, of
    which a learner would know what it is asked.
    """
    rows = []
    names = [name for name, c in COMBINERS.items() if "features" not in c.columns and name != "blend_proxies"]
    shared = sorted(set.intersection(*(set(sample.score_AP) for sample in samples.values())))
    ranked = {name: own_ranks(Sample(s.score_AP[shared], s.params_A)) for name, s in samples.items()}
    for source, target in itertools.permutations(samples, 2):
        if set(samples[source].params_A.index) & set(samples[target].params_A.index):
            continue
        both = Sample(
            pd.concat([ranked[source].score_AP, ranked[target].score_AP]),
            pd.concat([ranked[source].params_A, ranked[target].params_A]),
        )
        for theirs, task in itertools.product(accuracies[source], accuracies[target]):
            if theirs != task and OWN not in (theirs, task):
                continue
            known = Calibration(ranked[source], accuracies[source][theirs], both)
            for method in names:
                if COMBINERS[method].lacks(known):
                    continue
                predicted = COMBINERS[method].fit(known, stream_seed(0, "across", method))(ranked[target])
                truth = accuracies[target][task].to_numpy()
                low, high = spearman_interval(predicted, truth, seed=stream_seed(0, "across", task))
                facts = {
                    "source": source,
                    "source_task": theirs,
                    "target": target,
                    "task": task,
                    "method": method,
                    "n": len(truth),
                }
                rows.append(facts | {"spearman": spearman(predicted, truth), "low": low, "high": high})
    return pd.DataFrame(rows)


def counted(proxies: pd.DataFrame) -> pd.DataFrame:
    """On how many tasks each proxy beats #params, row a proxy."""
    groups = proxies[proxies["proxy"] != "params"].groupby("proxy")
    columns = {
        "tasks": groups.size(),
        "mean_spearman": groups["spearman"].mean(),
        "mean_partial_given_params": groups["partial_given_params"].mean(),
        "higher": groups["less_params_difference"].apply(lambda d: int((d > 0).sum())),
        "better": groups["less_params_low"].apply(lambda low: int((low > 0).sum())),
        "worse": groups["less_params_high"].apply(lambda high: int((high < 0).sum())),
    }
    return pd.DataFrame(columns).sort_values("mean_spearman", ascending=False)


def within(space: str, sample: Sample, accuracy_A: pd.Series) -> pd.DataFrame:
    """Combiners with labels of the same space and task, judged on the other networks."""
    seed = stream_seed(0, accuracy_A.name)
    judged = evaluate(sample.score_AP, accuracy_A, sample.params_A, LABELS, SPLITS, seed, feature_AF=sample.feature_AF)
    return judged.summary.assign(space=space, task=accuracy_A.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", help="CIFAR-10 as the adapter cifar10 reads it; without it the kept scores serve")
    parser.add_argument("--state", type=Path, default=Path("results/vit_bench_101"), help="folder of the progress")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="the tables to make (default: all)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    paths = sorted(arguments.folder.glob("*.json"))
    if arguments.images:
        arguments.state.mkdir(parents=True, exist_ok=True)
        for path in paths:
            scored(path, arguments.images, arguments.state)

    samples, accuracies = {}, {}
    for path in paths:
        space, archs, table = read(path)
        score_AP = pd.read_csv(HERE / "scores" / f"{path.stem}.csv", index_col=0).loc[table.index]
        score_AP, accuracies[path.stem] = score_AP.drop(columns="macs"), table[TASKS]
        features = pd.DataFrame([space.features(arch) for arch in archs], index=table.index)
        samples[path.stem] = Sample(score_AP, score_AP["params"], features)
    tasks = [(name, samples[name], accuracies[name][task]) for name in samples for task in TASKS]

    if "proxies" in arguments.only:
        judged = [proxies_of(name, truth.name, sample.score_AP, truth) for name, sample, truth in tasks]
        proxies = pd.concat(judged).set_index(["space", "task", "proxy"]).reset_index()
        write_text(HERE / "proxies.csv", proxies.to_csv(index=False, float_format="%.4g"))
        write_text(HERE / "against_params.csv", counted(proxies).to_csv(float_format="%.4g"))
        print(proxies[proxies["proxy"] == "params"].groupby(["space", "task"])["spearman"].first().round(3).to_string())
        print(counted(proxies).round(3).to_string())
    if "within" in arguments.only:
        labelled = pd.concat([within(*task) for task in tasks])
        write_text(HERE / "within.csv", labelled.to_csv(index=False, float_format="%.4g"))
        print(labelled.pivot_table("spearman", "method", ["space", "n_calibration"]).round(3).to_string())
    if "across" in arguments.only:
        ours, known = own_benchmarks()
        crossed = across(samples | ours, accuracies | known)
        write_text(HERE / "across.csv", crossed.to_csv(index=False, float_format="%.4g"))
        print(crossed.pivot_table("spearman", "method", ["source", "target"]).round(3).to_string())


if __name__ == "__main__":
    main()
