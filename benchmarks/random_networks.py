"""What random networks of a space are like: accuracy, choices and proxies, from trainings of ``trained_search.py``.

    python benchmarks/trained_search.py results/digits --seeds 10
    python benchmarks/random_networks.py results/digits --seeds 10                       # a second a network

Takes the random networks that random search trained for every seed, one short training each (seeds have networks in
common: the mean of their trainings), scores them with all proxies and one initialisation, and writes
``benchmarks/search/random-RUN.csv`` and the conditions beside, and ``label-free-RUN.csv``: rankings without labels. A
recorded table takes up the proxies that it lacks. Prints the Spearman correlation of every proxy and of each choice
with the accuracy, and the mean accuracy of every choice.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from judging import WITHOUT_LABELS, label_free, rankings
from score_tables import add_proxies
from trained_search import configuration, short_trainings

from libranas.core.arch import Arch
from libranas.core.files import read_log, write_json, write_text
from libranas.core.provenance import facts
from libranas.core.random import stream_seed
from libranas.core.stats import spearman
from libranas.predictors.base import Sample
from libranas.runs.folder import RunFolder
from libranas.spaces import Sampler
from libranas.zero_cost.registry import list_proxies

OUT = Path(__file__).with_name("search")
#: It needs a size to favour.
LEFT_OUT = ("reg_swap",)


def drawn(run: RunFolder, seeds: int) -> dict[str, Arch]:
    """The random networks of every seed, by id."""
    archs = {}
    for seed in range(1, seeds + 1):
        sampler = Sampler(run.space, run.budget, np.random.default_rng(stream_seed(seed, "random")))
        archs |= {arch.id: arch for arch in sampler.take(short_trainings(run.config))}
    return archs


def mean_accuracies(folder: Path, seeds: int) -> pd.Series:
    """The mean accuracy of every network that the searches trained."""
    run = RunFolder(folder, {})
    logs = [read_log(run.state(f"trained_search/{seed}/labels.jsonl")) for seed in range(1, seeds + 1)]
    table = pd.DataFrame([record for log in logs for record in log], columns=["arch", "accuracy"])
    return table.groupby("arch")["accuracy"].mean()


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
    config = configuration(options.presets) | {"device": "cpu", "seed": 1}
    path = OUT / f"random-{config['run']}.csv"
    kept = pd.read_csv(path, index_col="id") if path.exists() else pd.DataFrame()
    trained = kept["accuracy"] if len(kept) else mean_accuracies(options.run, options.seeds)
    run = RunFolder(options.run, config)
    known = [arch for name, arch in drawn(run, options.seeds).items() if name in trained.index]
    names = [name for name in list_proxies() if name not in LEFT_OUT]
    genes = choices(known)
    accuracy = trained[genes.index]
    if not len(kept):
        macs = pd.Series({arch.id: run.space.macs(arch) for arch in known})
        kept = genes.assign(accuracy=accuracy, macs=macs)
    written, _ = add_proxies(kept.loc[genes.index], run.scorer, known, names, run.state("random_networks.jsonl"))
    write_text(path, written.to_csv(index_label="id", float_format="%.6g"))
    about = {"seeds": options.seeds, "networks": len(written), "facts": facts()}
    write_json(
        path.with_suffix(".json"), about | {key: config[key] for key in ("space", "budget", "data", "benchmark")}
    )

    score_AP = written[[name for name in list_proxies() if name in written]]
    sample = Sample.of(score_AP, run.space, known)
    columns = rankings(sample).assign(accuracy=accuracy, macs=written["macs"])
    judged = label_free({config["run"]: columns}, WITHOUT_LABELS)
    write_text(path.with_stem(f"label-free-{config['run']}"), judged.to_csv(index=False, float_format="%.4g"))
    print(judged.set_index("method").round(2).T.to_string())
    print(score_AP.apply(lambda column: spearman(column, accuracy)).sort_values().round(2).to_string())
    for name, gene in genes.items():
        if gene.dtype.kind in "fi" and gene.nunique() > 1:
            print(f"\n{name}: Spearman {spearman(gene, accuracy):.2f}")
        groups = pd.cut(gene, 4) if gene.dtype.kind == "f" and gene.nunique() > 8 else gene
        print(accuracy.groupby(groups, observed=True).agg(["mean", "max", "size"]).round(3).to_string())


if __name__ == "__main__":
    main()
