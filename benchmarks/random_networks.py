"""What random networks of a space are like: accuracy, choices and proxies, from trainings of ``trained_search.py``.

    python benchmarks/trained_search.py results/digits --seeds 10
    python benchmarks/random_networks.py results/digits --seeds 10                       # a second a network

Takes the random networks that random search trained for every seed, one short training each (seeds have networks in
common: the mean of their trainings), scores them with all proxies and one initialisation, and writes
``benchmarks/search/random-RUN.csv`` and the conditions beside. Prints the Spearman correlation of every proxy, of
rankings without labels and of each choice with the accuracy, and the mean accuracy of every choice.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from trained_search import configuration, short_trainings

from libranas import scores as store
from libranas.core.files import read_log, write_json, write_text
from libranas.core.provenance import facts
from libranas.core.random import stream_seed
from libranas.core.stats import spearman
from libranas.predictors.base import Sample
from libranas.predictors.label_free import consensus, vote
from libranas.runs.folder import RunFolder
from libranas.scores.shard import score_shard
from libranas.spaces import Sampler
from libranas.zero_cost.registry import list_proxies

OUT = Path(__file__).with_name("search")
#: It needs a size to favour.
LEFT_OUT = ("reg_swap",)


def labelled(folder: Path, config: dict, seeds: int) -> tuple[list, pd.Series]:
    """The networks, and their mean accuracy."""
    archs, accuracy = {}, {}
    for seed in range(1, seeds + 1):
        run = RunFolder(folder, {**config, "seed": seed})
        found = {r["arch"]: r["accuracy"] for r in read_log(run.state(f"trained_search/{seed}/labels.jsonl"))}
        sampler = Sampler(run.space, run.budget, np.random.default_rng(stream_seed(seed, "random")))
        for arch in sampler.take(short_trainings(config)):
            if arch.id in found:
                archs[arch.id] = arch
                accuracy.setdefault(arch.id, []).append(found[arch.id])
    return list(archs.values()), pd.Series({name: np.mean(values) for name, values in accuracy.items()})


def choices(archs: list) -> pd.DataFrame:
    """A column for each gene; the mean over the blocks of what each block has."""
    rows = [{gene: arch[gene] for gene in arch.genes} for arch in archs]
    means = [{k: float(np.mean(v)) if isinstance(v, tuple) else v for k, v in row.items()} for row in rows]
    return pd.DataFrame(means, [arch.id for arch in archs])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("presets", type=Path, nargs="*")
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = configuration(options.presets) | {"device": "cpu"}
    archs, accuracy = labelled(options.run, config, options.seeds)
    run = RunFolder(options.run, {**config, "seed": 1})
    names = [name for name in list_proxies() if name not in LEFT_OUT]
    scores = score_shard(run.scorer(), archs, 1, names, run.state("random_networks.jsonl"))
    table = store.frame(scores)
    score_AP, accuracy = table[names], accuracy.loc[table.index]
    genes = choices(archs).loc[table.index]
    written = genes.assign(accuracy=accuracy, macs=table["macs"]).join(score_AP)
    path = OUT / f"random-{config['run']}.csv"
    write_text(path, written.to_csv(index_label="id", float_format="%.6g"))
    about = {"seeds": options.seeds, "networks": len(table), "facts": facts()}
    write_json(
        path.with_suffix(".json"), about | {key: config[key] for key in ("space", "budget", "data", "benchmark")}
    )

    sample = Sample(score_AP, score_AP["params"])
    rankings = score_AP.assign(consensus=consensus(sample)(sample), vote=vote(sample)(sample))
    print(rankings.apply(lambda column: spearman(column, accuracy)).sort_values().round(2).to_string())
    for name, gene in genes.items():
        if gene.dtype.kind in "fi" and gene.nunique() > 1:
            print(f"\n{name}: Spearman {spearman(gene, accuracy):.2f}")
        groups = pd.cut(gene, 4) if gene.dtype.kind == "f" and gene.nunique() > 8 else gene
        print(accuracy.groupby(groups, observed=True).agg(["mean", "max", "size"]).round(3).to_string())


if __name__ == "__main__":
    main()
