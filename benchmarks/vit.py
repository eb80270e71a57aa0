"""Records a benchmark of vision transformers that config/vit-benchmark.yaml made.

    python benchmarks/vit.py results/vit-cifar10 config/vit-benchmark.yaml

Writes to ``benchmarks/vit/RUN``: ``inherited.csv`` (architectures, sizes, accuracies with the supernet's weights) and
``trained.csv`` (the same for those that were trained: the mean, and each seed), either of which serves as
`benchmark.table` for the same space; ``scores.csv`` (every proxy, higher = better) and ``scores.h5`` (raw, with costs
and conditions: docs/store-format.md; without components); ``agreement.json`` (supernet against training, and the noise
ceiling); ``proxies.csv`` (each proxy against either accuracy); ``methods.csv`` (every combiner on trained accuracies);
``conditions.json``.
"""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
from trained_search import configuration

from libranas import store
from libranas.accuracy_table import mean_accuracies
from libranas.ensemble import proxy_table
from libranas.files import read_json, write_json, write_text

HERE = Path(__file__).with_name("vit")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("presets", nargs="+", type=Path, help="configuration files of the run")
    arguments = parser.parse_args()
    run, config = arguments.run, configuration(arguments.presets)
    folder = HERE / run.name
    folder.mkdir(parents=True, exist_ok=True)

    scores = store.read(run / "scores/scores.h5")
    bare = {name: replace(proxy, components={}) for name, proxy in scores.proxies.items()}
    store.write(folder / "scores.h5", replace(scores, proxies=bare, axes={}))
    table = pd.read_csv(run / "layers/table.csv", index_col="id")
    proxies = sorted(config["score"]["proxies"])
    write_text(folder / "scores.csv", table[proxies].to_csv(float_format="%.5g"))

    trained = pd.read_csv(run / "benchmark/train.csv")
    by_seed = trained.pivot(index="id", columns="seed", values="accuracy").add_prefix("seed_")
    accuracies = {
        "inherited": mean_accuracies(run / "benchmark/supernet.csv"),
        "trained": mean_accuracies(run / "benchmark/train.csv"),
    }
    archs = pd.Series({arch.id: arch.json for arch in scores.archs}, name="architecture")
    for source, accuracy in accuracies.items():
        networks = table[["params", "macs"]].assign(accuracy=accuracy).dropna()
        networks.insert(0, "architecture", archs)
        networks = networks.join(by_seed) if source == "trained" else networks
        write_text(folder / f"{source}.csv", networks.to_csv(index=False, float_format="%.6g"))

    judged = []
    for source, accuracy in accuracies.items():
        ids = accuracy.index
        judged.append(proxy_table(table.loc[ids, proxies], accuracy, table.loc[ids, "params"]).assign(accuracy=source))
    judged = pd.concat(judged)
    write_text(folder / "proxies.csv", judged.to_csv(index=False, float_format="%.4g"))
    for name in ("benchmark/agreement.json", "libra/methods.csv"):
        shutil.copy(run / name, folder / Path(name).name)
    agreement = read_json(run / "benchmark/agreement.json")
    kept = {key: config[key] for key in ("data", "space", "budget", "seed", "sample", "benchmark")}
    kept["data"] = {key: value for key, value in kept["data"].items() if key != "path"}
    manifest = read_json(run / "data/manifest.json")
    images = {"content_sha256": manifest["content_sha256"], "calibration_sha256": manifest["calibration"]["sha256"]}
    write_json(folder / "conditions.json", {**kept, "images": images, "facts": agreement["facts"]})

    print(judged.pivot(index="proxy", columns="accuracy", values="spearman").round(3).to_string())
    print({key: agreement[key] for key in ("n", "spearman", "low", "high", "noise")})


if __name__ == "__main__":
    main()
