"""Records a benchmark of vision transformers that config/vit-benchmark.yaml made.

    python benchmarks/vit.py results/vit-cifar10 config/vit-benchmark.yaml

Writes to ``benchmarks/vit/RUN``: ``inherited.csv`` (architectures, sizes, accuracies with the supernet's weights)
and ``trained.csv`` (the same for those that were trained: the mean, and each seed), either of which serves as
`benchmark.table` for the same space; ``trainings.jsonl`` (every training from scratch, with a key of all that it
depends on); ``scores.csv`` (every proxy, higher = better; those ending in ``_window`` are of the label-free layers
that ``window.json`` names) and ``scores.h5`` (raw, with costs and conditions: docs/store-format.md; without
components); ``agreement.json`` (supernet against training, and the noise ceiling); ``proxies.csv`` (each proxy on
either accuracy, and less #params); ``ablation.csv`` (the parts of L-SWAG, the paper's Table 3); ``label_free.csv``
(rankings without labels); ``windows.csv`` (L-SWAG in every window of the depth); ``within.csv`` (combiners with
labels); ``methods.csv`` (the same on trained accuracies, with L-SWAG of the window, as in every run);
``conditions.json``; and ``benchmarks/vit/across.csv`` (combiners with labels of the other run). Of a run that was
stopped it keeps the trainings. They are most of the work, and a run in a new place, with more networks or seeds
perhaps, takes them up from there:

    python benchmarks/vit.py results/vit-cifar10 config/vit-benchmark.yaml --restore     # then snakemake as above

Proxies that the preset has and a recorded table lacks are added to it:

    snakemake --cores 2 prepare --configfile config/vit-benchmark.yaml --config data='{path: cifar10.npz}'
    python benchmarks/vit.py results/vit-cifar10 config/vit-benchmark.yaml --add
"""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from judging import WITHOUT_LABELS, across_tasks, by_window, label_free, proxies_of, rankings, within
from score_tables import add_proxies
from trained_search import configuration

from libranas import scores as store
from libranas.core.arch import Arch
from libranas.core.files import AppendLog, read_json, read_log, write_json, write_text
from libranas.labels.table import mean_accuracies, read_accuracies
from libranas.predictors.base import Sample
from libranas.published.ablations import table3
from libranas.runs.folder import RunFolder
from libranas.scores import layer_window as layers
from libranas.scores.shard import score_shard

HERE = Path(__file__).with_name("vit")
#: Where accuracies are from, and the method of the stage benchmark that made them.
SOURCES = {"inherited": "supernet", "trained": "train"}


def logs(run: RunFolder) -> list[Path]:
    """Where the shards of a run keep their trainings."""
    return [run.state(f"benchmark/train-{shard}.jsonl") for shard in range(run.config["sample"]["shards"])]


def name(record: dict) -> tuple:
    """Which training a record is of."""
    return record["key"], record["arch"], record["seed"]


def keep_trainings(run: RunFolder, kept: Path) -> int:
    """Adds the trainings of a run to those that are kept; how many there are then."""
    with AppendLog(kept) as log:
        known = {name(record): record for record in log.records}
        for path in filter(Path.exists, logs(run)):
            for record in read_log(path):
                if name(record) not in known:
                    known[name(record)] = record
                    log.append(record)
                elif known[name(record)] != record:
                    raise SystemExit(f"{path}: {record}, but {kept} has {known[name(record)]}. Keep one of them.")
    return len(known)


def restore_trainings(run: RunFolder, kept: Path) -> None:
    """Give every shard of a run all the kept trainings: each uses those whose keys are its own.

    Those of ``vit-cifar10`` and ``vit-clothing`` are of version 1 of the stage benchmark, with other initial weights; a
    run of this version does them again.
    """
    for path in logs(run):
        with AppendLog(path) as log:
            for record in read_log(kept):
                if name(record) not in map(name, log.records):
                    log.append(record)


def keep_scores(scores: store.Scores, path: Path) -> None:
    """Write raw scores without their components, which are large."""
    proxies = {name: replace(s, components={}) for name, s in scores.proxies.items()}
    store.write(path, replace(scores, proxies=proxies, axes={}))


def score_table(scores: store.Scores, run: RunFolder) -> pd.DataFrame:
    """Every proxy, higher = better, of all layers and in the label-free layer window; rows in the order of the draw."""
    return layers.whole_and_windowed(scores, run.window, run.config["layers"]["psi"]).loc[run.ids].rename_axis("id")


def recorded(folder: Path) -> dict[str, tuple[Sample, pd.Series]]:
    """Return the recorded networks of either source, and their accuracies."""
    score_AP, found = pd.read_csv(folder / "scores.csv", index_col="id"), {}
    for source in SOURCES:
        table = pd.read_csv(folder / f"{source}.csv")
        ids = [Arch.from_json(text).id for text in table["architecture"]]
        found[source] = Sample(score_AP.loc[ids], score_AP.loc[ids, "params"]), table["accuracy"].set_axis(ids)
    return found


def judge(folder: Path, scores: store.Scores) -> None:
    """Write what proxies and rankings are worth on the recorded networks of either source, and across the two runs.

    `scores` has the parts of L-SWAG by layer, of all networks or of those that were trained.
    """
    known = recorded(folder)
    scored = {arch.id for arch in scores.archs}
    of_layers = {source: accuracy_A for source, (_, accuracy_A) in known.items() if scored.issuperset(accuracy_A.index)}
    write_text(folder / "windows.csv", by_window(scores, of_layers).to_csv(index=False, float_format="%.4g"))
    parts: dict[str, list[pd.DataFrame]] = {"proxies": [], "ablation": [], "label_free": [], "within": []}
    for source, (sample, accuracy_A) in known.items():
        score_AP = sample.score_AP
        columns = rankings(sample).assign(accuracy=accuracy_A, macs=score_AP["flops"])
        found = {
            "proxies": proxies_of(folder.name, source, score_AP, accuracy_A),
            "ablation": table3(score_AP, accuracy_A, sample.params_A),
            "label_free": label_free({source: columns}, WITHOUT_LABELS),
            "within": within(source, sample, accuracy_A),
        }
        for name, table in found.items():
            parts[name].append(table.assign(task=source))
    for name, tables in parts.items():
        write_text(folder / f"{name}.csv", pd.concat(tables).to_csv(index=False, float_format="%.4g"))
    runs = {path.parent.name: recorded(path.parent) for path in sorted(HERE.glob("*/inherited.csv"))}
    crossed = [
        across_tasks(
            {name: run[source][0] for name, run in runs.items()}, {name: run[source][1] for name, run in runs.items()}
        ).assign(source=source)
        for source in SOURCES
    ]
    write_text(HERE / "across.csv", pd.concat(crossed).to_csv(index=False, float_format="%.4g"))


def complete(run: RunFolder, folder: Path) -> store.Scores:
    """Score the recorded networks with the proxies of the run that the recorded table lacks; return those that were
    trained with the parts of L-SWAG by layer, which are not kept."""
    table, conditions = pd.read_csv(folder / "scores.csv", index_col="id"), read_json(folder / "conditions.json")
    archs = [Arch.from_json(text) for text in pd.read_csv(folder / "inherited.csv")["architecture"]]
    torch.set_num_threads(1)
    table, added = add_proxies(table, run.scorer, archs, run.config["score"]["proxies"], run.state("added.jsonl"))
    write_text(folder / "scores.csv", table.to_csv(float_format="%.8g"))
    write_json(folder / "conditions.json", conditions | added)
    trained = set(recorded(folder)["trained"][1].index)
    return score_shard(run.scorer(), [a for a in archs if a.id in trained], 1, ["lswag"], run.state("layers.jsonl"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("presets", nargs="+", type=Path, help="configuration files of the run")
    parser.add_argument("--restore", action="store_true", help="give the run the trainings that are kept, and end")
    parser.add_argument("--add", action="store_true", help="add the proxies that the recorded table lacks, and end")
    arguments = parser.parse_args()
    run = RunFolder(arguments.run, configuration(arguments.presets))
    folder = HERE / arguments.run.name
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.restore:
        return restore_trainings(run, folder / "trainings.jsonl")
    if arguments.add:
        return judge(folder, complete(run, folder))
    print(f"{keep_trainings(run, folder / 'trainings.jsonl')} trainings kept")
    if not run.path("agreement").exists() or not run.path("methods").exists():
        return print("the run has not got to the end of the stages agreement and libra: nothing else is recorded")

    scores = store.read(run.path("scores"))
    keep_scores(scores, folder / "scores.h5")
    table = score_table(scores, run)
    sizes, score_AP = table[["params", "macs"]].astype(int), table.drop(columns="macs")
    write_text(folder / "scores.csv", score_AP.to_csv(float_format="%.8g"))

    paths = {source: run.path("accuracy", method=method) for source, method in SOURCES.items()}
    trained = read_accuracies(paths["trained"])
    by_seed = trained.pivot(index="id", columns="seed", values="accuracy").add_prefix("seed_")
    accuracies = {source: mean_accuracies(path) for source, path in paths.items()}
    archs = pd.Series({arch.id: arch.json for arch in scores.archs}, name="architecture")
    for source, accuracy in accuracies.items():
        networks = sizes.assign(accuracy=accuracy).dropna()
        networks.insert(0, "architecture", archs)
        networks = networks.join(by_seed) if source == "trained" else networks
        write_text(folder / f"{source}.csv", networks.to_csv(index=False, float_format="%.6g"))

    for name in ("agreement", "methods", "window"):
        shutil.copy(run.path(name), folder)
    agreement = read_json(run.path("agreement"))
    facts = scores.provenance["parts"][0]  # of the first shard; the key of a training names its libraries
    kept = {
        key: run.config[key] for key in ("data", "space", "budget", "seed", "sample", "score", "layers", "benchmark")
    }
    kept["data"] = {key: value for key, value in kept["data"].items() if key != "path"}
    manifest = run.manifest
    images = {"content_sha256": manifest["content_sha256"], "calibration_sha256": manifest["calibration"]["sha256"]}
    write_json(folder / "conditions.json", {**kept, "images": images, "facts": facts})

    judge(folder, scores)
    judged = pd.read_csv(folder / "proxies.csv")
    print(judged.pivot(index="proxy", columns="task", values="spearman").round(3).to_string())
    print({key: agreement[key] for key in ("n", "spearman", "low", "high", "noise")})


if __name__ == "__main__":
    main()
