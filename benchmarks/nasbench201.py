"""Rebuilds the tables about NAS-Bench-201 from the kept scores, in seconds.

    python benchmarks/nasbench201.py TABLE.csv

TABLE.csv is the published table of 9,445 networks (docs/published-benchmarks.md). The scores are those of
``snakemake layers --configfile config/nasbench201.yaml`` (``benchmarks/nasbench201/scores.h5``). Written beside them:
``proxies.csv``, every proxy's Spearman with accuracy, ours and the published one on the same networks;
``table3.csv``, the columns of the paper's Table 3 that the data allow; ``methods.csv``, every combiner by number of
labels.
"""

import argparse
from pathlib import Path

import pandas as pd

from libranas import scores as store
from libranas.core.files import write_text
from libranas.core.stats import spearman
from libranas.predictors.evaluation import evaluate, proxy_table
from libranas.published.ablations import table3
from libranas.scores import layer_window as layers
from libranas.spaces import NASBench201Space

HERE = Path(__file__).with_name("nasbench201")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    arguments = parser.parse_args()
    scores = store.read(HERE / "scores.h5")
    frame = store.frame(scores)
    space = NASBench201Space()
    published = pd.read_csv(arguments.table)
    published.index = pd.Index([space.parse(text).id for text in published["arch"]], name="id")
    published = published.loc[frame.index]
    accuracy, names = published["val_accuracy"], list(scores.proxies)
    ours = proxy_table(frame[names], accuracy, frame["params"])
    theirs = [spearman(published[p], accuracy) if p in published else float("nan") for p in ours["proxy"]]
    agree = [spearman(published[p], frame[p]) if p in published else float("nan") for p in ours["proxy"]]
    ours = ours.assign(published=theirs, agreement=agree)
    write_text(HERE / "proxies.csv", ours.to_csv(index=False, float_format="%.4g"))

    window = layers.choose_window(layers.curve(scores)).window
    parts = table3(layers.whole_and_windowed(scores, window), accuracy, frame["params"], "NB201-C10")
    write_text(HERE / "table3.csv", parts.to_csv(index=False, float_format="%.4g"))

    features = pd.DataFrame([space.features(a) for a in scores.archs], index=frame.index)
    networks = pd.Series([space.representative(a).id for a in scores.archs], frame.index)
    told = {"feature_AF": features, "network_A": networks}
    judged = evaluate(frame[names], accuracy, frame["params"], [0, 25, 100], 20, **told)
    write_text(HERE / "methods.csv", judged.summary.to_csv(index=False, float_format="%.4g"))
    print(f"{len(frame)} networks; layer window {window}")
    print(ours[["proxy", "spearman", "low", "high", "published", "partial_given_params"]].to_string(index=False))
    print(parts.to_string(index=False))
    print(judged.summary.pivot(index="method", columns="n_calibration", values="spearman").round(3).to_string())


if __name__ == "__main__":
    main()
